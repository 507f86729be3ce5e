"""What a comparison found out: a line for each policy and setting, and verdicts between the policies of a setting."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from finetune.comparison.arms import Arm
from finetune.comparison.grid import Cell
from finetune.comparison.outcome import Outcome
from finetune.comparison.paired import Pair, Verdict, compared, verdicts

ALL_PAIRS = 4
"""Lines of a setting up to which each is compared with each: more verdicts than a person reads, and each the weaker."""


@dataclass(frozen=True)
class Line:
    """One arm. rate: chosen, None is the recipe's own. accuracy, validation: on the test and the validation split, by
    seed, of the cells that did not fail. failures: in one line each. seconds: mean of a cell."""

    arm: Arm
    rate: float | None
    accuracy: dict[int, float]
    validation: dict[int, float]
    failures: tuple[str, ...]
    seconds: float

    @property
    def mean(self) -> float:
        return fmean(self.accuracy.values()) if self.accuracy else math.nan

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds."""
        return stdev(self.accuracy.values()) if len(self.accuracy) > 1 else math.nan


@dataclass(frozen=True)
class Comparison:
    """name: of the recipe. recommended: by setting, the arm that did best on validation."""

    name: str
    lines: tuple[Line, ...]
    verdicts: dict[str, tuple[Verdict, ...]]
    recommended: dict[str, Line]

    @property
    def failed(self) -> list[str]:
        return [words for line in self.lines for words in line.failures]


def summed_up(name: str, finals: Sequence[Cell], outcomes: Mapping[str, Outcome]) -> Comparison:
    """Holm's correction counts all verdicts of the comparison, whatever their setting."""
    lines = [_line(arm, cells, outcomes) for arm, cells in _by_arm(finals).items()]
    settings = list(dict.fromkeys(line.arm.setting for line in lines))
    pairs = {setting: _pairs([line for line in lines if line.arm.setting == setting]) for setting in settings}
    judged = iter(verdicts([pair for some in pairs.values() for pair in some]))
    return Comparison(
        name=name,
        lines=tuple(lines),
        verdicts={setting: tuple(itertools.islice(judged, len(some))) for setting, some in pairs.items()},
        recommended={
            setting: best
            for setting in settings
            if (best := _best([line for line in lines if line.arm.setting == setting])) is not None
        },
    )


def _by_arm(finals: Sequence[Cell]) -> dict[Arm, list[Cell]]:
    arms: dict[Arm, list[Cell]] = {}
    for cell in finals:
        arms.setdefault(cell.arm, []).append(cell)
    return arms


def _line(arm: Arm, cells: Sequence[Cell], outcomes: Mapping[str, Outcome]) -> Line:
    good = {cell.seed: outcomes[cell.key] for cell in cells if not outcomes[cell.key].failed}
    return Line(
        arm=arm,
        rate=cells[0].rate,
        accuracy={seed: outcome.accuracy for seed, outcome in good.items()},
        validation={seed: outcome.validation_accuracy for seed, outcome in good.items()},
        failures=tuple(
            f"{cell.words}: {outcomes[cell.key].failed}" for cell in cells if outcomes[cell.key].failed
        ),
        seconds=fmean(outcomes[cell.key].seconds for cell in cells),
    )


def _pairs(lines: Sequence[Line]) -> list[Pair]:
    """Every line with every other of the same setting; of many, the recommended one with every other.

    Those that share no seed are left out.
    """
    best = _best(lines)
    return [
        compared(one.arm.name, one.accuracy, other.arm.name, other.accuracy)
        for one, other in itertools.combinations(lines, 2)
        if one.accuracy.keys() & other.accuracy.keys()
        if len(lines) <= ALL_PAIRS or best in (one, other)
    ]


def _best(lines: Sequence[Line]) -> Line | None:
    """By mean validation accuracy; a policy of which some seeds failed only where there is no other."""
    some = [line for line in lines if line.validation]
    return max(some, key=lambda line: (not line.failures, fmean(line.validation.values())), default=None)
