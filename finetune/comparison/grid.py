"""What is compared: policies x settings x seeds, each cell a whole recipe that was checked beforehand."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import InputError, RecipeError
from finetune.recipe import Recipe, resolved
from finetune.recipe_file import load_recipe


@dataclass(frozen=True, order=True)
class Arm:
    """One line of the table. setting: what --set says, "data.batch_size=8 seed=1"; empty where nothing varies."""

    setting: str
    policy: str


@dataclass(frozen=True)
class Cell:
    """One training. rate: the peak learning rate of the last stage; None is the recipe's own."""

    arm: Arm
    rate: float | None
    seed: int
    recipe: Recipe

    @property
    def key(self) -> str:
        """The same for the same training, whatever it is called and wherever it is tracked."""
        decides = {name: value for name, value in resolved(self.recipe).items() if name not in UNDECIDED}
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    @property
    def words(self) -> str:
        """How it is called in a line of progress."""
        named = [self.arm.policy, self.arm.setting, "" if self.rate is None else f"rate {self.rate:g}"]
        return ", ".join([*filter(None, named), f"seed {self.seed}"])


UNDECIDED = ("name", "tracking")
"""Sections of a recipe that no training depends on."""


@dataclass(frozen=True)
class Grid:
    """path: of the recipe. varied: what takes several values, one override a value. rates: of the last stage; empty
    leaves every policy at the recipe's own. seeds: 0 to seeds - 1. fixed: overrides that all cells have."""

    path: Path
    policies: tuple[str, ...]
    varied: tuple[tuple[str, ...], ...]
    fixed: tuple[str, ...]
    rates: tuple[float, ...]
    seeds: int

    def __post_init__(self) -> None:
        problems = []
        if self.seeds < 1:
            problems.append(f"--seeds: expected 1 or more, found {self.seeds}")
        if any(rate <= 0 for rate in self.rates):
            problems.append("--learning-rates: expected numbers above 0")
        if problems:
            raise InputError(problems)

    def arms(self) -> list[Arm]:
        settings = [" ".join(some) for some in itertools.product(*self.varied)]
        return [Arm(setting, policy) for setting in settings for policy in self.policies]

    def cell(self, arm: Arm, rate: float | None, seed: int) -> Cell:
        """Raises RecipeError where the recipe cannot be changed so."""
        own = load_recipe(self.path, self.fixed)
        changes = [*self.fixed, *arm.setting.split(" ")] if arm.setting else [*self.fixed]
        if isinstance(own.batchnorm, tuple) or own.batchnorm.policy != arm.policy:
            # the keys of the recipe's own policy mean nothing to another one, but what --set says does
            at = len(self.fixed)
            changes.insert(at, f"batchnorm={{policy: {arm.policy}}}")
        if rate is not None:
            changes.append(f"stages.{len(own.stages) - 1}.learning_rate={rate!r}")
        recipe = load_recipe(self.path, [*changes, f"seed={seed}"])
        return Cell(arm, rate, seed, recipe)

    def check(self) -> None:
        """Raises RecipeError with the problems of all arms, before anything is trained."""
        problems: dict[str, None] = {}
        for arm in self.arms():
            try:
                self.cell(arm, self.rates[0] if self.rates else None, 0)
            except RecipeError as error:
                problems |= dict.fromkeys(f"{problem} ({arm.policy})" for problem in error.problems)
        if problems:
            raise RecipeError(problems)


def alternatives(texts: Sequence[str]) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
    """`--set key=a,b` as what varies, ("key=a", "key=b"), and all else as what is fixed.

    Raises InputError where a value is missing, or has a blank in it that varies.
    """
    varied, fixed = [], []
    for text in texts:
        key, _, values = text.partition("=")
        some = list(_values(values))
        if len(some) == 1:
            fixed.append(text)
        elif any(not value or " " in value for value in some):
            raise InputError(
                f"--set {text}: expected values between commas, without blanks, as in {key}=8,32"
            )
        else:
            varied.append(tuple(f"{key}={value}" for value in some))
    return tuple(varied), tuple(fixed)


def _values(text: str) -> Iterator[str]:
    """Between commas, of which those in brackets belong to a value."""
    depth, start = 0, 0
    for place, character in enumerate(text):
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            yield text[start:place]
            start = place + 1
    yield text[start:]


def shared_overrides(arm: Arm, cell: Cell) -> dict[str, Any]:
    """What a cell is, for MLflow: its recipe, flat, with the arm's words beside it."""
    plain = resolved(cell.recipe)
    return plain | {"arm": {"policy": arm.policy, "setting": arm.setting or "-"}}
