"""The epochs of a stage, leg by leg: `fit` takes batches of one size at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import keras

from finetune.batch_sizes import Leg
from finetune.callbacks import BestWeights, DivergenceWatch, EpochLog
from finetune.errors import DivergedError
from finetune.progress import Progress

if TYPE_CHECKING:
    import tensorflow as tf

KNOWS_SOMETHING, GUESSES = 0.8, 0.95
"""Shares of the loss of guessing: below the one a network knows something, above the other it does not."""

Log = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True, eq=False)
class Feed:
    """What `fit` reads: the training batches of each leg, the validation batches."""

    training: Callable[[Leg], tf.data.Dataset]
    validation: tf.data.Dataset
    classes: int
    class_weights: Mapping[int, float] | None


@dataclass(frozen=True, eq=False)
class Watched:
    """Who hears of a stage of `epochs` epochs, and when it stops. before: validation loss at the start, where it is
    known. patience: epochs without a new best after which it stops. stale: the running statistics that validation
    uses are partly those from before the stage, so that its loss says little about the weights."""

    title: str
    epochs: int
    progress: Progress
    log: Log
    before: float | None
    patience: int | None
    stale: bool = False


def fit_legs(
    model: keras.Model, legs: Sequence[Leg], feed: Feed, watched: Watched, turn: Callable[[Leg], None]
) -> float:
    """The validation loss of the best epoch, whose weights are in the model then.

    turn: called before every leg but the first. Raises DivergedError; the last good weights are in the model then.
    """
    best = BestWeights(watched.patience, watched.before)
    watched.progress.stage(watched.title, watched.epochs, legs[0].steps, legs[0].batch_size)
    try:
        for leg in legs:
            if leg is not legs[0]:
                # at its end `fit` puts the optimizer's average of the weights, where there is one, into the model
                best.put_latest_back()
                turn(leg)
                watched.progress.rebatched(leg.steps, leg.batch_size)
            _fit_leg(model, leg, feed, watched, best)
            if model.stop_training:
                break
        best.put_best_back()
        if not watched.stale:
            refuse_collapse(watched.title, watched.before, best.best, feed.classes)
    except DivergedError:
        best.put_last_good_back()
        raise
    finally:
        watched.progress.close()
    if best.got_worse:
        watched.progress.note(
            f"{watched.title}: no epoch reached the validation loss that the stage began with ({watched.before:.3f})"
        )
    return best.best


def _fit_leg(model: keras.Model, leg: Leg, feed: Feed, watched: Watched, best: BestWeights) -> None:
    watch = DivergenceWatch(watched.title, leg.steps, feed.classes)
    model.fit(
        feed.training(leg),
        validation_data=feed.validation,
        initial_epoch=leg.epochs.start,
        epochs=leg.epochs.stop,
        class_weight=dict(feed.class_weights) if feed.class_weights else None,
        callbacks=[watch, EpochLog(watched.progress, watched.log), best],
        verbose=0,
        # the batches come shuffled; Keras warns that it will not shuffle them again
        shuffle=False,
    )


def refuse_collapse(title: str, before: float | None, after: float, classes: int) -> None:
    """Raise DivergedError where a network fell back to guessing: dead units leave a finite loss, ln(classes)."""
    guessing = math.log(classes)
    if before is not None and before < KNOWS_SOMETHING * guessing and after > GUESSES * guessing:
        raise DivergedError(
            f"{title}: the network collapsed: its lowest validation loss is {after:.3f}, guessing has {guessing:.3f}, "
            f"and it began at {before:.3f}; lower the learning rate of this stage (frozen statistics need a lower one "
            "than batch statistics), or lengthen its warmup"
        )
