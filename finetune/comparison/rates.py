"""Each policy at its own learning rate: a rate that suits `retrain` makes policies with fixed statistics diverge.

All rates are tried on the first seed, and the best two on the second as well, since near the rate at which a training
diverges one seed says little. The mean validation loss decides; the test split is not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from finetune.comparison.arms import Arm
from finetune.comparison.grid import Cell, Grid
from finetune.comparison.outcome import Outcome

BEST = 2
"""Rates of an arm that are tried on the second seed."""


def trials(grid: Grid) -> list[Cell]:
    """Every rate of every arm, on the first seed."""
    return [grid.cell(arm, rate, 0) for arm in grid.arms() for rate in grid.rates or (None,)]


def second_trials(grid: Grid, tried: Sequence[Cell], outcomes: Mapping[str, Outcome]) -> list[Cell]:
    """The best rates of every arm, on the second seed; none where there is no choice, or one seed."""
    if grid.seeds < 2 or len(grid.rates) < 2:
        return []
    return [
        grid.cell(arm, rate, 1)
        for arm, rates in _by_arm(tried, outcomes).items()
        for rate in sorted(rates, key=lambda rate: (fmean(rates[rate]), rate))[:BEST]
    ]


def chosen(tried: Sequence[Cell], outcomes: Mapping[str, Outcome]) -> dict[Arm, float]:
    """The rate of each arm, among those that were tried on most seeds; the lowest one where all of them failed."""
    found = {}
    for arm, rates in _by_arm(tried, outcomes).items():
        most = max(map(len, rates.values()))
        found[arm] = min(
            (rate for rate in rates if len(rates[rate]) == most), key=lambda rate: (fmean(rates[rate]), rate)
        )
    return found


def _by_arm(tried: Sequence[Cell], outcomes: Mapping[str, Outcome]) -> dict[Arm, dict[float, list[float]]]:
    """Validation losses by arm and rate; infinite where it failed."""
    losses: dict[Arm, dict[float, list[float]]] = {}
    for cell in tried:
        rates = losses.setdefault(cell.arm, {})
        rates.setdefault(cell.rate or 0.0, []).append(outcomes[cell.key].validation_loss)
    return losses


def finals(grid: Grid, rates: Mapping[Arm, float | None]) -> list[Cell]:
    """All seeds of each arm at its rate."""
    return [grid.cell(arm, rate, seed) for arm, rate in rates.items() for seed in range(grid.seeds)]
