"""The loss while the learning rate rises batch by batch from far too low to far too high (Smith, arXiv:1506.01186).

Where it falls fastest is a rate to begin with; where it explodes is the end. Both depend on the BN policy, since batch
statistics take back what a step does to the scale of a layer, and fixed ones do not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from numpy.typing import NDArray

from finetune.batchnorm.fast_sites import fast_sites
from finetune.batchnorm.sites import restored_settings
from finetune.checkpoint import assign, values_of, variables_of
from finetune.compiling import compile_stage
from finetune.policies.base import Policy
from finetune.progress import Progress
from finetune.train import Material, feed_of, legs_of, training_labels
from finetune.trained_part import Trainee, choose_trained

if TYPE_CHECKING:
    from finetune.stage import Stage

EXPLODED, RISEN = 4.0, 2.0
"""Times the lowest smoothed loss, and times that of the first batches: a loss that was small is rough."""

FIRST = 10
"""Batches before which nothing is called an explosion: the loss of single batches is rough."""


@dataclass(frozen=True)
class RateSweep:
    """losses: of each batch, before the step that was made with its rate. exploded: the rate after which the loss was
    far above its lowest value and where it began, or not finite; None where it never was."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    exploded: float | None

    @property
    def smoothed(self) -> NDArray[np.float64]:
        """A mean over neighbours on both sides, which moves no slope; shorter at the ends."""
        return smoothed(self.losses)

    @property
    def lowest(self) -> float:
        """The rate at which the smoothed loss is lowest."""
        return float(self.rates[int(np.argmin(self.smoothed))])

    @property
    def steepest(self) -> float | None:
        """The rate at which the smoothed loss falls fastest over the logarithm of the rate, before its minimum; None
        where it never falls."""
        values, logs = self.smoothed, np.log(self.rates)
        lowest = int(np.argmin(values))
        if lowest < 2:
            return None
        slopes = np.gradient(values[: lowest + 1], logs[: lowest + 1])
        return float(self.rates[int(np.argmin(slopes))]) if slopes.min() < 0 else None


def smoothed(losses: Sequence[float]) -> NDArray[np.float64]:
    values = np.asarray(losses, np.float64)
    last, widest = len(values) - 1, max(len(values) // 20, 1)
    reaches = [min(widest, i, last - i) for i in range(len(values))]
    return np.array([values[i - reach : i + reach + 1].mean() for i, reach in enumerate(reaches)])


def ramp(low: float, high: float, steps: int) -> tuple[float, ...]:
    """`steps` rates from low to high, each the same factor above the one before it."""
    return tuple(np.geomspace(low, high, steps).tolist())


def sweep_rates(
    trainee: Trainee,
    policy: Policy,
    stage: Stage,
    material: Material,
    rates: Sequence[float],
    progress: Progress,
) -> RateSweep:
    """Train as the stage would, with a rate for each batch; weights, statistics and momenta are given back."""
    model = trainee.model
    held = values_of(variables_of(model))
    still = stage.model_copy(
        update={"schedule": "constant", "warmup": 0.0, "learning_rate": rates[0], "ema": None}
    )
    watch = RisingRate(rates, progress)
    with restored_settings(trainee.sites):
        trained = choose_trained(trainee, stage.train)
        policy.prepare(trainee.sites, trained=trained, steps_per_epoch=legs_of(stage, material)[0].steps)
        with fast_sites(model, trainee.sites):
            labels = training_labels(stage, material)
            compile_stage(model, still, len(rates), labels=labels, backbone=trainee.backbone)
            feed, first = feed_of(material, stage), legs_of(stage, material)[0]
            batches = feed.batches(feed.training(first)).repeat().take(len(rates))
            model.fit(batches, epochs=1, callbacks=[watch], verbose=0, shuffle=False)
    progress.close()
    assign(variables_of(model), held, "model")
    return RateSweep(tuple(rates[: len(watch.losses)]), tuple(watch.losses), watch.exploded)


class RisingRate(keras.callbacks.Callback):
    """Set the rate before each batch, note the loss of each, and stop where it exploded."""

    def __init__(self, rates: Sequence[float], progress: Progress) -> None:
        super().__init__()
        self.rates, self.progress = rates, progress
        self.losses: list[float] = []
        self.exploded: float | None = None
        self._sum = 0.0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.model.optimizer.learning_rate = self.rates[batch]

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        # `fit` hands on the mean over the epoch so far
        total = float((logs or {})["loss"]) * (batch + 1)
        loss, self._sum = total - self._sum, total
        if not math.isfinite(loss):
            self._stop(batch)
            return
        self.losses.append(loss)
        self.progress.share((batch + 1) / len(self.rates))
        if batch >= FIRST and self._exploded():
            self._stop(batch)

    def _exploded(self) -> bool:
        now = np.mean(self.losses[-3:])
        return bool(
            now > EXPLODED * smoothed(self.losses).min() and now > RISEN * np.mean(self.losses[:FIRST])
        )

    def _stop(self, batch: int) -> None:
        # the step before it did it
        self.exploded = self.rates[max(batch - 1, 0)]
        self.model.stop_training = True
