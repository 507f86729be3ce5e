"""What the trainer watches during `fit`: divergence, the log of every epoch, the best weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune.errors import DivergedError
from finetune.progress import Progress


class DivergenceWatch(keras.callbacks.Callback):
    """Stop at the first step whose loss is not finite, or a hundred times that of guessing.

    after: batches of the epoch that came before the first. Raises DivergedError; the message names the step and says
    what to do.
    """

    TIMES_CHANCE = 100.0

    def __init__(self, title: str, steps: int, classes: int, after: int = 0) -> None:
        super().__init__()
        self.title, self.steps, self.after = title, steps, after
        self.limit = self.TIMES_CHANCE * math.log(max(classes, 2))
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        loss = float((logs or {})["loss"])
        if math.isfinite(loss) and loss <= self.limit:
            return
        what = f"reached {loss:.3g}" if math.isfinite(loss) else f"became {loss}"
        raise DivergedError(
            f"{self.title}: the loss {what} at step {self.after + batch + 1} of {self.steps} in epoch {self.epoch}; "
            "lower the learning rate of this stage (frozen statistics need a lower one than batch statistics), "
            "or lengthen its warmup"
        )


class EpochLog(keras.callbacks.Callback):
    """Hand every batch to the progress, every epoch to the log, under the names that MLflow shows.

    after: batches of the epoch that came before the first.
    """

    NAMES = {  # noqa: RUF012 - read only
        "loss": "train/loss",
        "accuracy": "train/accuracy",
        "val_loss": "validation/loss",
        "val_accuracy": "validation/accuracy",
    }

    def __init__(
        self, progress: Progress, log: Callable[[int, Mapping[str, float]], None], after: int = 0
    ) -> None:
        super().__init__()
        self.progress, self.log, self.after = progress, log, after

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        logs = logs or {}
        self.progress.batch(self.after + batch + 1, float(logs["loss"]), float(logs["accuracy"]))

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        metrics = {name: float((logs or {})[key]) for key, name in self.NAMES.items()}
        self.progress.epoch(epoch + 1, metrics)
        rate = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self.log(epoch + 1, {**metrics, "learning_rate": rate})


class BestWeights(keras.callbacks.Callback):
    """Keep the weights (running statistics included) of the epoch with the lowest validation loss.

    One for all legs of a stage. It stops the stage for want of progress, and whoever trains puts weights back.
    patience: epochs without a new best after which the stage stops; None never stops it.
    before: validation loss at the start, where it is known.
    """

    def __init__(self, patience: int | None, before: float | None = None) -> None:
        super().__init__()
        self.patience, self.before = patience, before
        self.best = math.inf
        self.best_epoch = 0
        self.weights: list[np.ndarray] = []
        self.initial: list[np.ndarray] = []
        self.latest: list[np.ndarray] = []

    def go_on(
        self,
        best: float,
        best_epoch: int,
        weights: Sequence[np.ndarray],
        initial: Sequence[np.ndarray],
        model: keras.Model,
    ) -> None:
        """Where another sitting of the same stage broke off; `model` is as that one left it.

        weights: those of the best epoch; none where they are the model's.
        """
        self.set_model(model)
        self.best, self.best_epoch = best, best_epoch
        self.latest, self.initial = model.get_weights(), list(initial)
        self.weights = list(weights) or self.latest

    def on_train_begin(self, logs: Any = None) -> None:
        if not self.initial:
            self.weights = self.initial = self.model.get_weights()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        loss = float((logs or {})["val_loss"])
        self.latest = self.model.get_weights()
        if loss < self.best:
            self.best, self.best_epoch = loss, epoch + 1
            self.weights = self.latest
        elif self.patience is not None and epoch + 1 - self.best_epoch >= self.patience:
            self.model.stop_training = True

    def put_best_back(self) -> None:
        """Of all epochs so far; those of the start where no loss was a number."""
        self.model.set_weights(self.weights)

    def put_latest_back(self) -> None:
        """As the last epoch left them."""
        self.model.set_weights(self.latest)

    @property
    def got_worse(self) -> bool:
        """No epoch was as good as the start."""
        return self.before is not None and self.best > self.before

    def put_last_good_back(self) -> None:
        """After a divergence: the weights of the best epoch, or those of the start where no epoch was as good."""
        self.model.set_weights(self.initial if self.got_worse else self.weights)
