"""What is compared: policies x settings x seeds, each cell a whole recipe that was checked beforehand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

from finetune.comparison.arms import Arm, Varied, arms_of
from finetune.errors import InputError, RecipeError
from finetune.policies import POLICIES
from finetune.recipe import Recipe, resolved
from finetune.recipe_file import load_recipe


@dataclass(frozen=True)
class Cell:
    """One training. rate: the peak learning rate of the last stage; None is the recipe's own."""

    arm: Arm
    rate: float | None
    seed: int
    recipe: Recipe

    @cached_property
    def key(self) -> str:
        """The same for the same training, whatever it is called and wherever it is tracked."""
        decides = {name: value for name, value in resolved(self.recipe).items() if name not in UNDECIDED}
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    @property
    def words(self) -> str:
        """How it is called in a line of progress."""
        named = [self.arm.name, self.arm.setting, "" if self.rate is None else f"rate {self.rate:g}"]
        return ", ".join([*filter(None, named), f"seed {self.seed}"])


KNOWN = tuple(kind.model_fields["policy"].default for kind in POLICIES)
"""Names of policies."""

UNDECIDED = ("name", "tracking", "distribute")
"""Sections of a recipe that no training depends on; the last one is refused here."""

IN_ONE_PROCESS = "{}: distribute: every cell trains in one process; leave it out with --set distribute=null"


@dataclass(frozen=True)
class Grid:
    """path: of the recipe. varied: what takes several values, one override a value. rates: of the last stage; empty
    leaves every policy at the recipe's own. seeds: 0 to seeds - 1. fixed: overrides that all cells have."""

    path: Path
    policies: tuple[str, ...]
    varied: Varied
    fixed: tuple[str, ...]
    rates: tuple[float, ...]
    seeds: int

    def __post_init__(self) -> None:
        problems = []
        if len(set(self.policies)) < len(self.policies):
            problems.append(f"--policies: expected different ones, got {','.join(self.policies)}")
        if self.seeds < 1:
            problems.append(f"--seeds: expected 1 or more, got {self.seeds}")
        if any(rate <= 0 for rate in self.rates):
            problems.append(
                f"--learning-rates: expected numbers above 0, got {', '.join(map(str, self.rates))}"
            )
        if problems:
            raise InputError(problems)

    def arms(self) -> list[Arm]:
        return arms_of(self.policies, self.varied)

    def cell(self, arm: Arm, rate: float | None, seed: int) -> Cell:
        """Raises RecipeError where the recipe cannot be changed so."""
        own = load_recipe(self.path, self.fixed)
        changes = [*self.fixed]
        if isinstance(own.batchnorm, tuple) or own.batchnorm.policy != arm.policy:
            # the keys of the recipe's own policy mean nothing to another one
            changes.append(f"batchnorm={{policy: {arm.policy}}}")
        changes += arm.overrides
        if rate is not None:
            changes.append(f"stages.{len(own.stages) - 1}.learning_rate={rate!r}")
        recipe = load_recipe(self.path, [*changes, f"seed={seed}"])
        return Cell(arm, rate, seed, recipe)

    def check(self) -> None:
        """Raises RecipeError with the problems of all arms, before anything is trained."""
        unknown = [policy for policy in self.policies if policy not in KNOWN]
        problems = [*map(_unknown, unknown), *self._overruled()]
        found: dict[str, list[str]] = {}
        arms = arms_of([policy for policy in self.policies if policy in KNOWN], self.varied)
        for arm in arms:
            try:
                cell = self.cell(arm, self.rates[0] if self.rates else None, 0)
            except RecipeError as error:
                for problem in error.problems:
                    found.setdefault(problem, []).append(arm.policy)
                continue
            if cell.recipe.distribute:
                found.setdefault(IN_ONE_PROCESS.format(self.path), []).append(arm.policy)
        for problem, policies in found.items():
            everywhere = set(policies) == {arm.policy for arm in arms}
            problems.append(problem if everywhere else f"{problem} ({', '.join(dict.fromkeys(policies))})")
        if problems:
            raise RecipeError(problems)

    def _overruled(self) -> Iterator[str]:
        """What --set says in vain."""
        last = len(load_recipe(self.path).stages) - 1
        rate = f"stages.{last}.learning_rate"
        for text in (*self.fixed, *(some[0] for some in self.varied)):
            key = text.partition("=")[0]
            if key == "seed":
                yield f"--set {text}: --seeds N trains the seeds 0 to N - 1; leave the seed out"
            if key == rate and self.rates:
                yield f"--set {text}: --learning-rates decides it; add --learning-rates none, or leave it out"


def _unknown(policy: str) -> str:
    near = get_close_matches(policy, KNOWN, 1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    return f"--policies: expected some of {', '.join(KNOWN)}, got {policy!r}{meant}"
