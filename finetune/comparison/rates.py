"""Each policy at its own learning rate: a rate that suits `retrain` makes policies with fixed statistics diverge.

All rates are tried on the first seed; the lowest validation loss decides, and the test split is not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from finetune.comparison.arms import Arm
from finetune.comparison.grid import Cell, Grid
from finetune.comparison.outcome import Outcome


def trials(grid: Grid) -> list[Cell]:
    """The cells that decide about the rates: one for each rate of each arm."""
    return [grid.cell(arm, rate, 0) for arm in grid.arms() for rate in grid.rates or (None,)]


def chosen(tried: Sequence[Cell], outcomes: Mapping[str, Outcome]) -> dict[Arm, float | None]:
    """The rate of each arm; the lowest one where all of them failed."""
    best: dict[Arm, tuple[float, float, float | None]] = {}
    for cell in tried:
        candidate = (outcomes[cell.key].validation_loss, cell.rate or 0.0, cell.rate)
        if cell.arm not in best or candidate[:2] < best[cell.arm][:2]:
            best[cell.arm] = candidate
    return {arm: rate for arm, (_, _, rate) in best.items()}


def finals(grid: Grid, rates: Mapping[Arm, float | None]) -> list[Cell]:
    """All seeds of each arm at its rate."""
    return [grid.cell(arm, rate, seed) for arm, rate in rates.items() for seed in range(grid.seeds)]
