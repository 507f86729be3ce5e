"""What a comparison trains, and in what order: each policy at its own learning rate, then on every seed.

A rate that suits `retrain` makes policies with fixed statistics diverge. All rates are tried on the first seed, and the
lowest one is taken whose validation loss is near that of the best one: of rates that one seed does not tell apart, the
lowest is the farthest from where trainings diverge, as one takes the simplest of models within one standard error
(Breiman, Friedman, Olshen & Stone 1984). A rate under which the second seed fails is not taken either,
as long as there is another one. The test split is not looked at. Each arm goes on by itself: what its next cells are
depends on its own outcomes alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
        """Cells that all of it has, where no rate is given up on the second seed."""
        return len(self.grid.arms()) * (max(len(self.grid.rates), 1) + self.grid.seeds - 1)

    def rate(self, arm: Arm, outcomes: Outcomes) -> float | None:
        """The learning rate of an arm whose trials are known; None where the recipe keeps its own. The lowest one where
        all of them failed."""
        losses = {rate: self._loss(arm, rate, outcomes) for rate in self.grid.rates}
        near = NEAR * min(losses.values(), default=math.inf)
        return min((rate for rate, loss in losses.items() if loss <= near), default=None)

    def table(self, outcomes: Outcomes) -> list[Cell]:
        """All seeds of each arm at its rate, when nothing is due any more."""
        return [cell for arm in self.grid.arms() for cell in self._seeds(arm, self.rate(arm, outcomes))]

    def _next_of(self, arm: Arm, outcomes: Outcomes) -> Sequence[Cell]:
        trials = [self._cell(arm, rate, 0) for rate in self.grid.rates]
        if any(cell.key not in outcomes for cell in trials):
            return trials
        return self._seeds(arm, self.rate(arm, outcomes))

    def _loss(self, arm: Arm, rate: float, outcomes: Outcomes) -> float:
        """On validation, of the first seed; infinite where that or, as far as it is known, the second failed."""
        first, *second = (
            found
            for seed in range(min(self.grid.seeds, 2))
            if (found := outcomes.get(self._cell(arm, rate, seed).key)) is not None
        )
        return math.inf if any(found.failed for found in second) else first.validation_loss

    def _seeds(self, arm: Arm, rate: float | None) -> list[Cell]:
        return [self._cell(arm, rate, seed) for seed in range(self.grid.seeds)]

    def _cell(self, arm: Arm, rate: float | None, seed: int) -> Cell:
        if (arm, rate, seed) not in self._cells:
            self._cells[arm, rate, seed] = self.grid.cell(arm, rate, seed)
        return self._cells[arm, rate, seed]
