"""Two policies compared seed by seed: equal seeds draw equal batches, so that the difference spreads less than either.

Student's t on the paired differences, and Holm's correction for the number of comparisons (Holm 1979, "A simple
sequentially rejective multiple test procedure").
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

LEVEL = 0.95


@dataclass(frozen=True)
class Pair:
    """A comparison of one policy with another, in shares of the test images. low, high: the 95 % interval of the mean
    difference over `seeds` pairs; infinite with fewer than two. p: of no difference, two-sided."""

    better: str
    other: str
    difference: float
    low: float
    high: float
    p: float
    seeds: int


@dataclass(frozen=True)
class Verdict:
    """shown: the difference holds beside all the other comparisons. among: how many there are, this one included."""

    pair: Pair
    shown: bool
    among: int

    @property
    def words(self) -> str:
        pair = self.pair
        points = f"{100 * pair.difference:.1f} points"
        if math.isinf(pair.low):
            return f"{pair.better} against {pair.other}: {points}, of one seed: nothing is shown"
        interval = f"95 % interval {100 * pair.low:.1f} to {100 * pair.high:.1f}, {pair.seeds} seeds"
        if self.shown:
            return f"{pair.better} beats {pair.other} by {points}, {interval}"
        # what would be a difference if nothing else had been compared
        alone = f"; it would be one alone, but not among {self.among} comparisons" if pair.low > 0 else ""
        return f"no difference shown between {pair.better} and {pair.other}: {points}, {interval}{alone}"


def compared(first: str, of_first: Mapping[int, float], second: str, of_second: Mapping[int, float]) -> Pair:
    """Values by seed; seeds that only one of them has do not count. Raises ValueError where none is left."""
    seeds = sorted(of_first.keys() & of_second.keys())
    if not seeds:
        raise ValueError(f"{first} and {second} have no seed in common")
    differences = [of_first[seed] - of_second[seed] for seed in seeds]
    if fmean(differences) < 0:
        first, second, differences = second, first, [-value for value in differences]
    mean = fmean(differences)
    if len(differences) < 2:
        return Pair(first, second, mean, -math.inf, math.inf, 1.0, len(differences))
    margin, p = _student(mean, stdev(differences) / math.sqrt(len(differences)), len(differences) - 1)
    return Pair(first, second, mean, mean - margin, mean + margin, p, len(differences))


def _student(mean: float, error: float, freedom: int) -> tuple[float, float]:
    from scipy.stats import t

    if error == 0:
        return 0.0, 1.0 if mean == 0 else 0.0
    return float(t.ppf((1 + LEVEL) / 2, freedom)) * error, float(2 * t.sf(abs(mean) / error, freedom))


def verdicts(pairs: Sequence[Pair]) -> list[Verdict]:
    """Holm: the smallest p is held against .05 / n, the next against .05 / (n - 1), up to the first that fails."""
    order = sorted(range(len(pairs)), key=lambda number: pairs[number].p)
    shown = set[int]()
    for rank, number in enumerate(order):
        if pairs[number].p > (1 - LEVEL) / (len(pairs) - rank):
            break
        shown.add(number)
    return [Verdict(pair, number in shown, len(pairs)) for number, pair in enumerate(pairs)]
