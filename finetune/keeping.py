"""Keeping where a stage stands: after its epochs, within them, and when somebody wants to end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from finetune.callbacks import BestWeights
from finetune.checkpoint import assign, values_of
from finetune.keras_backend import on_tensorflow
from finetune.orders import Orders
from finetune.pace import Pace
from finetune.standing import Standing


@dataclass(frozen=True, eq=False)
class Keeping:
    """write: brings a standing to the disk, with the model as it is. pace: when to."""

    write: Callable[[Standing], None]
    pace: Pace


class StandingKeeper(keras.callbacks.Callback):
    """Counts the epochs of the orders, and has kept where the stage stands; the last of the callbacks, so that all
    else has happened.

    One for all legs of a stage of `epochs` epochs. keeping: None keeps nothing. asked: whether somebody wants to end,
    which is a KeyboardInterrupt as soon as the standing is kept. at: where an earlier sitting of the stage broke off;
    the first epoch has the batches after those that it had then.
    """

    def __init__(
        self,
        best: BestWeights,
        epochs: int,
        keeping: Keeping | None,
        asked: Callable[[], bool],
        at: Standing | None,
    ) -> None:
        super().__init__()
        self.best, self.epochs, self.keeping, self.asked = best, epochs, keeping, asked
        self.orders: Orders
        self.epoch = self.step = 0
        self._earlier = at
        self._metrics: Sequence[np.ndarray] = ()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        at, self._earlier = self._earlier, None
        self.epoch, self.step = epoch, at.step if at else 0
        if at and at.step:
            # `fit` has just reset them
            assign(self.model.metrics_variables, at.metrics, "metrics")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.step += 1
        if self._is_time():
            self._metrics = self._counted()
            self._keep_within()

    def on_test_begin(self, logs: Any = None) -> None:
        # `evaluate` resets them
        self._metrics = self._counted()

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        # and not at its end, for which Keras would fetch the losses of every batch
        if self._is_time():
            self._keep_within()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.orders.epoch_is_over()
        if self.keeping is None:
            return
        stopped = bool(self.model.stop_training)
        over = stopped or epoch + 1 == self.epochs
        if over or self.asked() or self.keeping.pace.after_an_epoch:
            self.keeping.write(self._standing(epoch + 1, stopped=stopped))
        if self.asked():
            raise KeyboardInterrupt

    def _counted(self) -> Sequence[np.ndarray]:
        if not on_tensorflow():
            # within an epoch its variables are empty, and what they stand for is in the step's own hands
            self.model.jax_state_sync()
        return values_of(self.model.metrics_variables)

    def _is_time(self) -> bool:
        return self.keeping is not None and (self.asked() or self.keeping.pace.within_an_epoch)

    def _keep_within(self) -> None:
        if self.keeping:
            self.keeping.write(self._standing(self.epoch, step=self.step, metrics=self._metrics))
        if self.asked():
            raise KeyboardInterrupt

    def _standing(
        self, epochs: int, *, stopped: bool = False, step: int = 0, metrics: Sequence[np.ndarray] = ()
    ) -> Standing:
        best = self.best
        return Standing(
            epochs,
            stopped,
            best.best,
            best.best_epoch,
            best.weights,
            best.initial,
            self.orders.drawn,
            step,
            metrics,
        )
