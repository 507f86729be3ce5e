"""What a comparison found out: a line for each policy and setting, and verdicts between the policies of a setting."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from finetune.comparison.arms import Arm
from finetune.comparison.grid import Cell
from finetune.comparison.outcome import Metric, Outcome
from finetune.comparison.paired import Pair, Verdict, compared, verdicts

ALL_PAIRS = 4
"""Lines of a setting up to which each is compared with each: more verdicts than a person reads, and each the weaker."""


@dataclass(frozen=True)
class Line:
    """One arm. rate: chosen, None is the recipe's own. scores, validation: on the test and the validation split, by
    seed, of the cells that did not fail. failures: in one line each. seconds: mean of a cell."""

    arm: Arm
    rate: float | None
    scores: dict[int, float]
    validation: dict[int, float]
    failures: tuple[str, ...]
    seconds: float

    @property
    def mean(self) -> float:
        return fmean(self.scores.values()) if self.scores else math.nan

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds."""
        return stdev(self.scores.values()) if len(self.scores) > 1 else math.nan


@dataclass(frozen=True)
class Comparison:
    """name: of the recipe. metric: what is compared. recommended: by setting, the arm that did best on validation."""

    name: str
    metric: Metric
    lines: tuple[Line, ...]
    verdicts: dict[str, tuple[Verdict, ...]]
    recommended: dict[str, Line]

    @property
    def measured(self) -> str:
        """What the scores are, in words."""
        return f"test {self.metric.replace('_', ' ')}"

    @property
    def failed(self) -> list[str]:
        return [words for line in self.lines for words in line.failures]


def summed_up(
    name: str, finals: Sequence[Cell], outcomes: Mapping[str, Outcome], metric: Metric = "accuracy"
) -> Comparison:
    """Holm's correction counts all verdicts of the comparison, whatever their setting."""
    lines = [_line(arm, cells, outcomes, metric) for arm, cells in _by_arm(finals).items()]
    settings = list(dict.fromkeys(line.arm.setting for line in lines))
    pairs = {setting: _pairs([line for line in lines if line.arm.setting == setting]) for setting in settings}
    judged = iter(verdicts([pair for some in pairs.values() for pair in some]))
    return Comparison(
        name=name,
        metric=metric,
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


def _line(arm: Arm, cells: Sequence[Cell], outcomes: Mapping[str, Outcome], metric: Metric) -> Line:
    good = {cell.seed: outcomes[cell.key] for cell in cells if not outcomes[cell.key].failed}
    validation = {seed: outcome.validation_score(metric) for seed, outcome in good.items()}
    return Line(
        arm=arm,
        rate=cells[0].rate,
        scores={seed: outcome.score(metric) for seed, outcome in good.items()},
        validation={seed: score for seed, score in validation.items() if not math.isnan(score)},
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
        compared(one.arm.name, one.scores, other.arm.name, other.scores)
        for one, other in itertools.combinations(lines, 2)
        if one.scores.keys() & other.scores.keys()
        if len(lines) <= ALL_PAIRS or best in (one, other)
    ]


def _best(lines: Sequence[Line]) -> Line | None:
    """By the mean on validation; a policy of which some seeds failed only where there is no other."""
    some = [line for line in lines if line.validation]
    return max(some, key=lambda line: (not line.failures, fmean(line.validation.values())), default=None)
