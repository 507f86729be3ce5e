"""What a comparison trains, and in what order: each policy at its own learning rate, then on every seed.

A rate that suits `retrain` makes policies with fixed statistics diverge. All rates are tried on the first seed. The
best one, and what is near it, is tried on the second as well, since near the rate at which a training diverges one seed
says little. The mean validation loss decides; the test split is not looked at. Each arm goes on by itself: what its
next cells are depends on its own outcomes alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from finetune.comparison.arms import Arm
from finetune.comparison.grid import Cell, Grid
from finetune.comparison.outcome import Outcome

NEAR = 1.1
"""Times the loss of the best rate, up to which another one may be the best on another seed."""

Outcomes = Mapping[str, Outcome]
"""By key of the cell."""


@dataclass(eq=False)
class Plan:
    """Of a grid. Raises RecipeError where a cell is no recipe."""

    grid: Grid
    _cells: dict[tuple[Arm, float | None, int], Cell] = field(default_factory=dict)

    def due(self, outcomes: Outcomes) -> list[Cell]:
        """What can be trained now and is not known, each training once; empty when all is done."""
        cells = (cell for arm in self.grid.arms() for cell in self._next_of(arm, outcomes))
        return list({cell.key: cell for cell in cells if cell.key not in outcomes}.values())

    def most(self) -> int:
        """Cells that all of it has, if every rate is tried on the second seed."""
        again = len(self.grid.rates) if self._chooses() else 0
        left = self.grid.seeds - (2 if again else 1)
        return len(self.grid.arms()) * (max(len(self.grid.rates), 1) + again + left)

    def rate(self, arm: Arm, outcomes: Outcomes) -> float | None:
        """The learning rate of an arm whose trials are known; None where the recipe keeps its own. The lowest one where
        all of them failed."""
        losses = self._losses(arm, outcomes)
        return _leader(losses) if losses else None

    def table(self, outcomes: Outcomes) -> list[Cell]:
        """All seeds of each arm at its rate, when nothing is due any more."""
        return [cell for arm in self.grid.arms() for cell in self._seeds(arm, self.rate(arm, outcomes))]

    def _next_of(self, arm: Arm, outcomes: Outcomes) -> Sequence[Cell]:
        trials = [self._cell(arm, rate, 0) for rate in self.grid.rates]
        if any(cell.key not in outcomes for cell in trials):
            return trials
        again = [self._cell(arm, rate, 1) for rate in self._to_try_again(arm, outcomes)]
        return again or self._seeds(arm, self.rate(arm, outcomes))

    def _to_try_again(self, arm: Arm, outcomes: Outcomes) -> list[float]:
        """Rates that another seed may show to be the best, or not to be."""
        if not self._chooses():
            return []
        losses = self._losses(arm, outcomes)
        best = fmean(losses[_leader(losses)])
        return [
            rate
            for rate, found in losses.items()
            if len(found) == 1 and math.isfinite(found[0]) and found[0] <= NEAR * best
        ]

    def _chooses(self) -> bool:
        return self.grid.seeds > 1 and len(self.grid.rates) > 1

    def _losses(self, arm: Arm, outcomes: Outcomes) -> dict[float, list[float]]:
        """Validation losses by rate, of the first seed and, where it is known, the second; infinite where it failed."""
        return {rate: list(self._trials(arm, rate, outcomes)) for rate in self.grid.rates}

    def _trials(self, arm: Arm, rate: float, outcomes: Outcomes) -> Iterator[float]:
        for seed in range(min(self.grid.seeds, 2)):
            found = outcomes.get(self._cell(arm, rate, seed).key)
            if found is not None:
                yield found.validation_loss

    def _seeds(self, arm: Arm, rate: float | None) -> list[Cell]:
        return [self._cell(arm, rate, seed) for seed in range(self.grid.seeds)]

    def _cell(self, arm: Arm, rate: float | None, seed: int) -> Cell:
        if (arm, rate, seed) not in self._cells:
            self._cells[arm, rate, seed] = self.grid.cell(arm, rate, seed)
        return self._cells[arm, rate, seed]


def _leader(losses: Mapping[float, Sequence[float]]) -> float:
    return min(losses, key=lambda rate: (fmean(losses[rate]), rate))
