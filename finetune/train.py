"""The trainer: one stage at a time, the BN policy applied before every compile."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import keras

from finetune.batchnorm.sites import BNSite
from finetune.callbacks import BestWeights, DivergenceWatch, EpochLog
from finetune.errors import DivergedError, InputError
from finetune.optimizer import optimizer_for
from finetune.policies.base import Policy
from finetune.progress import Progress

if TYPE_CHECKING:
    import tensorflow as tf

    from finetune.stage import FromLayer, Stage


KNOWS_SOMETHING, GUESSES = 0.8, 0.95
"""Shares of the loss of guessing: below the one a network knows something, above the other it does not."""


@dataclass(frozen=True, eq=False)
class Trainee:
    """A model under training: the joined model, its backbone inside it, its sites."""

    model: keras.Model
    backbone: keras.Model
    sites: Sequence[BNSite]


@dataclass(frozen=True, eq=False)
class Material:
    """Batched data for the trainer. steps: training batches an epoch; classes: how many there are."""

    training: tf.data.Dataset
    validation: tf.data.Dataset
    steps: int
    batch_size: int
    classes: int
    class_weights: Mapping[int, float] | None


@dataclass(frozen=True, eq=False)
class FitOutcome:
    """trained: the sites inside what the stage trained. validation_loss: of the weights it left in the model."""

    trained: Sequence[BNSite]
    validation_loss: float


def fit_stage(
    trainee: Trainee,
    policy: Policy,
    stage: Stage,
    title: str,
    material: Material,
    progress: Progress,
    log: Callable[[int, Mapping[str, float]], None],
    before: float | None = None,
) -> FitOutcome:
    """Train one stage and leave the model with its best weights, by validation loss.

    log: called with (epoch from 1, metrics) after every epoch. before: validation loss at the start,
    where it is known. Raises DivergedError where the loss left the finite numbers and where the stage took a network
    that knew something back to guessing; the last good weights are in the model then.
    """
    trained = choose_trained(trainee, stage.train)
    policy.prepare(trainee.sites, trained=trained, steps_per_epoch=material.steps)
    compile_stage(trainee.model, stage, material.steps)
    best = BestWeights(stage.early_stopping, before)
    watch = DivergenceWatch(title, material.steps, material.classes)
    progress.stage(title, stage.epochs, material.steps, material.batch_size)
    try:
        trainee.model.fit(
            material.training,
            validation_data=material.validation,
            epochs=stage.epochs,
            class_weight=dict(material.class_weights) if material.class_weights else None,
            callbacks=[watch, EpochLog(progress, log), best],
            verbose=0,
            # the batches come shuffled; Keras warns that it will not shuffle them again
            shuffle=False,
        )
        refuse_collapse(title, before, best.best, material.classes)
    except DivergedError:
        best.put_last_good_back()
        raise
    finally:
        progress.close()
    if best.got_worse:
        progress.note(
            f"{title}: no epoch reached the validation loss that the stage began with ({before:.3f})"
        )
    return FitOutcome(trained, best.best)


def refuse_collapse(title: str, before: float | None, after: float, classes: int) -> None:
    """Raise DivergedError where a network fell back to guessing: dead units leave a finite loss, ln(classes)."""
    guessing = math.log(classes)
    if before is not None and before < KNOWS_SOMETHING * guessing and after > GUESSES * guessing:
        raise DivergedError(
            f"{title}: the network collapsed: its lowest validation loss is {after:.3f}, guessing has {guessing:.3f}, "
            f"and it began at {before:.3f}; lower the learning rate of this stage (frozen statistics need a lower one "
            "than batch statistics), or lengthen its warmup"
        )


def choose_trained(trainee: Trainee, train: str | FromLayer) -> list[BNSite]:
    """Set which layers train: the head, everything, or the backbone from one layer on and the head.

    Returns the sites that are inside. The policy comes after: this sets every site inside trainable.
    """
    _set_trainable(trainee.model, True)
    for layer in kept_layers(trainee.backbone, train):
        _set_trainable(layer, False)
    return [site for site in trainee.sites if site.layer.trainable]


def _set_trainable(layer: keras.Layer, value: bool) -> None:
    """On every layer below by itself: `layer.trainable = value` recurses only where the value changes."""
    for each in layer._flatten_layers():
        each.trainable = value


def kept_layers(backbone: keras.Model, train: str | FromLayer) -> Sequence[keras.Layer]:
    """The layers of the backbone that a stage does not train. Raises InputError where there is no such layer."""
    if train == "everything":
        return ()
    if train == "head":
        return (backbone,)
    pattern = train if isinstance(train, str) else train.layer
    names = [layer.name for layer in backbone.layers]
    first = next((i for i, name in enumerate(names) if fnmatch.fnmatchcase(name, pattern)), None)
    if first is None:
        raise InputError(
            f"stages: train from {pattern!r}: the backbone {backbone.name} has no such layer; "
            f"it has {', '.join(names[:6])}, ... {names[-1]} ({len(names)} layers; * and ? are understood)"
        )
    return backbone.layers[:first]


def compile_stage(model: keras.Model, stage: Stage, steps: int) -> None:
    """Compile for one stage: optimizer, schedule, loss; XLA only where there is an accelerator ("auto")."""
    model.compile(
        optimizer=optimizer_for(stage, steps),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile="auto",
    )
