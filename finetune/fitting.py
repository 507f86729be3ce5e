"""The epochs of a stage, leg by leg: `fit` takes batches of one size at a time.

An epoch that an earlier sitting broke off is a `fit` of its own, on the batches that it has left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import keras

from finetune.batch_sizes import Leg
from finetune.batchnorm.nonfinite import first_nonfinite
from finetune.batchnorm.sites import BNSite
from finetune.callbacks import BestWeights, DivergenceWatch, EpochLog
from finetune.distribution.loop import evaluate, fit
from finetune.distribution.replicas import ALONE, Replicas
from finetune.errors import DivergedError
from finetune.interruption import first_signal_waits
from finetune.keeping import Keeping, StandingKeeper
from finetune.objective import smoothed
from finetune.orders import Orders
from finetune.progress import Progress
from finetune.standing import Standing

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

    def batches(self, orders: Orders, after: int = 0) -> Any:
        """Those of every epoch after its first so many, with their labels as the loss takes them."""
        # behind all that draws random numbers: what is left out has drawn its share
        batches = orders.batches.skip(after) if after else orders.batches
        if not self.smoothing:
            return batches
        return batches.map(lambda x, labels: (x, smoothed(labels, self.classes, self.smoothing)))


@dataclass(frozen=True, eq=False)
class Watched:
    """Who hears of a stage of `epochs` epochs, and when it stops. before: validation loss at the start, where it is
    known. patience: epochs without a new best after which it stops. stale: the running statistics that validation
    uses are partly those from before the stage, so that its loss says little about the weights. keeping: has kept where
    the stage stands. at: where it stood when it was broken off. sites: tell where a training diverged."""

    title: str
    epochs: int
    progress: Progress
    log: Log
    before: float | None
    patience: int | None
    stale: bool = False
    keeping: Keeping | None = None
    at: Standing | None = None
    sites: Sequence[BNSite] = ()


def fit_legs(
    model: keras.Model, legs: Sequence[Leg], feed: Feed, watched: Watched, turn: Callable[[Leg], None]
) -> float:
    """The validation loss of the best epoch, whose weights are in the model then.

    turn: called before every leg but the one that is first now. Raises DivergedError; the last good weights are in the
    model then. Raises KeyboardInterrupt where somebody wanted to end, when that is kept.
    """
    best = BestWeights(watched.patience, watched.before)
    if watched.at:
        best.go_on(watched.at.best, watched.at.best_epoch, watched.at.weights, watched.at.initial, model)
    done, ahead = (watched.at.epochs if watched.at else legs[0].epochs.start), legs_ahead(legs, watched.at)
    first, step = (ahead or legs)[0], watched.at.step if watched.at else 0
    watched.progress.stage(watched.title, watched.epochs, first.steps, first.batch_size, done, step)
    try:
        # a worker that is not the chief goes on, so that the chief can finish its step and keep it
        waits = watched.keeping or not feed.replicas.chief
        with first_signal_waits() if waits else nullcontext(lambda: False) as asked:
            keeper = StandingKeeper(best, legs[-1].epochs.stop, watched.keeping, asked, watched.at)
            for leg in ahead:
                if leg is not first:
                    # at its end `fit` puts the optimizer's average of the weights, where there is one, into the model
                    best.put_latest_back()
                    turn(leg)
                    watched.progress.rebatched(leg.steps, leg.batch_size)
                _fit_leg(model, leg, feed, watched, best, keeper)
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
    model: keras.Model, leg: Leg, feed: Feed, watched: Watched, best: BestWeights, keeper: StandingKeeper
) -> None:
    at, orders, begin = watched.at, feed.training(leg), leg.epochs.start
    keeper.orders = orders
    if at and at.epochs in leg.epochs and (at.epochs > begin or at.step):
        begin = at.epochs
        orders.skip_to(at.drawn)
        if at.step:
            _fit(model, leg, range(begin, begin + 1), feed, watched, best, keeper, after=at.step)
            if model.stop_training:
                return
            best.put_latest_back()
            begin += 1
    if begin < leg.epochs.stop:
        _fit(model, leg, range(begin, leg.epochs.stop), feed, watched, best, keeper)


def _fit(
    model: keras.Model,
    leg: Leg,
    epochs: range,
    feed: Feed,
    watched: Watched,
    best: BestWeights,
    keeper: StandingKeeper,
    after: int = 0,
) -> None:
    """after: batches of every epoch that are left out."""
    watch = DivergenceWatch(watched.title, leg.steps, feed.classes, after)
    callbacks = [watch, EpochLog(watched.progress, watched.log, after), best, keeper]
    if after >= leg.steps:
        _validate(model, epochs.start, feed, callbacks, keeper.orders)
        return
    fit(
        feed.replicas,
        model,
        feed.batches(keeper.orders, after),
        validation_data=feed.validation,
        initial_epoch=epochs.start,
        epochs=epochs.stop,
        class_weight=feed.class_weights,
        callbacks=callbacks,
    )


def _validate(
    model: keras.Model, epoch: int, feed: Feed, callbacks: Sequence[keras.callbacks.Callback], orders: Orders
) -> None:
    """The end of an epoch whose batches were all trained on: `fit` does not take an epoch without any."""
    told = keras.callbacks.CallbackList(list(callbacks), model=model)
    model.stop_training = False
    orders.draw_an_epoch()
    told.on_epoch_begin(epoch)
    logs = model.get_metrics_result()
    validated = evaluate(feed.replicas, model, feed.validation, told)
    told.on_epoch_end(epoch, logs | {f"val_{name}": value for name, value in validated.items()})


def refuse_collapse(title: str, before: float | None, after: float, guessing: float) -> None:
    """Raise DivergedError where a network fell back to guessing, which has a finite loss: that of dead units."""
    if before is not None and before < KNOWS_SOMETHING * guessing and after > GUESSES * guessing:
        raise DivergedError(
            f"{title}: the network collapsed: its lowest validation loss is {after:.3f}, guessing has {guessing:.3f}, "
            f"and it began at {before:.3f}; lower the learning rate of this stage (frozen statistics need a lower one "
            "than batch statistics), or lengthen its warmup"
        )
