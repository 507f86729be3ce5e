"""Where a stage stands: what is known of it besides the variables of its model and its optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Standing:
    """After `epochs` whole epochs of a stage and `step` batches of the next. stopped: it has no more, whatever the
    recipe says.

    best, best_epoch, weights: the lowest validation loss so far, its epoch (from 1; 0 is the start), and the weights it
    had; none where they are those of the model. initial: the weights that the stage began with. drawn: orders of its
    batches, before the one that the epoch under way is in. metrics: values of the variables in which its batches are
    counted; none where it has had none.
    """

    epochs: int
    stopped: bool
    best: float
    best_epoch: int
    weights: Sequence[np.ndarray]
    initial: Sequence[np.ndarray]
    drawn: int
    step: int = 0
    metrics: Sequence[np.ndarray] = ()
