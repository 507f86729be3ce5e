"""The epochs of a stage, leg by leg: `fit` takes batches of one size at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from finetune.batch_sizes import Leg
from finetune.batchnorm.nonfinite import first_nonfinite
from finetune.batchnorm.sites import BNSite
from finetune.callbacks import BestWeights, DivergenceWatch, EpochKeeper, EpochLog
from finetune.distribution.loop import fit
from finetune.distribution.replicas import ALONE, Replicas
from finetune.errors import DivergedError
from finetune.objective import smoothed
from finetune.orders import Orders
from finetune.progress import Progress

KNOWS_SOMETHING, GUESSES = 0.8, 0.95
"""Shares of the loss of guessing: below the one a network knows something, above the other it does not."""

Log = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True, eq=False)
class Feed:
    """What `fit` reads: the training batches of each leg, the validation batches (a tf.data.Dataset). smoothing: of the
    training labels. guessing: the loss of guessing, in nats. replicas: share every batch."""

    training: Callable[[Leg], Orders]
    validation: Any
    classes: int
    class_weights: Mapping[int, float] | None
    smoothing: float
    guessing: float
    replicas: Replicas = ALONE

    def batches(self, orders: Orders) -> Any:
        """Those of the orders, with their labels as the loss takes them."""
        if not self.smoothing:
            return orders.batches
        return orders.batches.map(lambda x, labels: (x, smoothed(labels, self.classes, self.smoothing)))


@dataclass(frozen=True, eq=False)
class Standing:
    """Where a stage stands after `epochs` of its epochs; stopped: it has no more, whatever the recipe says.

    best, best_epoch, weights: the lowest validation loss so far, its epoch (from 1), and the weights it had; none where
    they are those of the model. initial: the weights that the stage began with. drawn: orders of its batches.
    """

    epochs: int
    stopped: bool
    best: float
    best_epoch: int
    weights: Sequence[np.ndarray]
    initial: Sequence[np.ndarray]
    drawn: int


@dataclass(frozen=True, eq=False)
class Watched:
    """Who hears of a stage of `epochs` epochs, and when it stops. before: validation loss at the start, where it is
    known. patience: epochs without a new best after which it stops. stale: the running statistics that validation
    uses are partly those from before the stage, so that its loss says little about the weights. keep: takes where the
    stage stands after every epoch. at: where it stood when it was broken off. sites: tell where a training diverged."""

    title: str
    epochs: int
    progress: Progress
    log: Log
    before: float | None
    patience: int | None
    stale: bool = False
    keep: Callable[[Standing], None] | None = None
    at: Standing | None = None
    sites: Sequence[BNSite] = ()


def fit_legs(
    model: keras.Model, legs: Sequence[Leg], feed: Feed, watched: Watched, turn: Callable[[Leg], None]
) -> float:
    """The validation loss of the best epoch, whose weights are in the model then.

    turn: called before every leg but the one that is first now. Raises DivergedError; the last good weights are in the
    model then.
    """
    best = BestWeights(watched.patience, watched.before)
    if watched.at:
        best.go_on(watched.at.best, watched.at.best_epoch, watched.at.weights, watched.at.initial, model)
    done, ahead = (watched.at.epochs if watched.at else legs[0].epochs.start), legs_ahead(legs, watched.at)
    first = (ahead or legs)[0]
    watched.progress.stage(watched.title, watched.epochs, first.steps, first.batch_size, done)
    try:
        for leg in ahead:
            if leg is not first:
                # at its end `fit` puts the optimizer's average of the weights, where there is one, into the model
                best.put_latest_back()
                turn(leg)
                watched.progress.rebatched(leg.steps, leg.batch_size)
            _fit_leg(model, leg, max(done, leg.epochs.start), feed, watched, best)
            if model.stop_training:
                break
        best.put_best_back()
        if not watched.stale:
            refuse_collapse(watched.title, watched.before, best.best, feed.guessing)
    except DivergedError as error:
        where = first_nonfinite(watched.sites)
        best.put_last_good_back()
        raise DivergedError(f"{error}{where}") from None
    finally:
        watched.progress.close()
    if best.got_worse:
        watched.progress.note(
            f"{watched.title}: no epoch reached the validation loss that the stage began with ({watched.before:.3f})"
        )
    return best.best


def legs_ahead(legs: Sequence[Leg], at: Standing | None) -> Sequence[Leg]:
    """Those with epochs that are not done yet; all of them where nothing is."""
    if at is None:
        return legs
    return [] if at.stopped else [leg for leg in legs if leg.epochs.stop > at.epochs]


def _fit_leg(
    model: keras.Model, leg: Leg, begin: int, feed: Feed, watched: Watched, best: BestWeights
) -> None:
    watch = DivergenceWatch(watched.title, leg.steps, feed.classes)
    orders = feed.training(leg)
    if watched.at and leg.epochs.start < begin == watched.at.epochs:
        orders.skip_to(watched.at.drawn)
    keeper = EpochKeeper(lambda done: _after_epoch(done, orders, watched, best))
    fit(
        feed.replicas,
        model,
        feed.batches(orders),
        validation_data=feed.validation,
        initial_epoch=begin,
        epochs=leg.epochs.stop,
        class_weight=feed.class_weights,
        callbacks=[watch, EpochLog(watched.progress, watched.log), best, keeper],
    )


def _after_epoch(done: int, orders: Orders, watched: Watched, best: BestWeights) -> None:
    orders.epoch_is_over()
    if watched.keep:
        stopped = bool(best.model.stop_training)
        standing = Standing(
            done, stopped, best.best, best.best_epoch, best.weights, best.initial, orders.drawn
        )
        watched.keep(standing)


def refuse_collapse(title: str, before: float | None, after: float, guessing: float) -> None:
    """Raise DivergedError where a network fell back to guessing, which has a finite loss: that of dead units."""
    if before is not None and before < KNOWS_SOMETHING * guessing and after > GUESSES * guessing:
        raise DivergedError(
            f"{title}: the network collapsed: its lowest validation loss is {after:.3f}, guessing has {guessing:.3f}, "
            f"and it began at {before:.3f}; lower the learning rate of this stage (frozen statistics need a lower one "
            "than batch statistics), or lengthen its warmup"
        )
