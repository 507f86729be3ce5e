"""The trainer: one stage at a time, the BN policy applied before every compile."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import keras

from finetune.averaging import keep_if_no_worse, put_average
from finetune.batchnorm.fast_sites import fast_sites
from finetune.batchnorm.sites import BNSite
from finetune.callbacks import BestWeights, DivergenceWatch, EpochLog
from finetune.errors import DivergedError
from finetune.feature_cache import ImageSource, NotCacheable, cached_head_stage
from finetune.optimizer import optimizer_for
from finetune.policies.base import Images, Policy
from finetune.progress import Progress
from finetune.trained_part import Trainee, choose_trained

if TYPE_CHECKING:
    import tensorflow as tf

    from finetune.stage import Stage


KNOWS_SOMETHING, GUESSES = 0.8, 0.95
"""Shares of the loss of guessing: below the one a network knows something, above the other it does not."""


@dataclass(frozen=True, eq=False)
class Material:
    """Batched data for the trainer. steps: training batches an epoch; classes: how many there are.
    images: what the batches are made from, for stages that compute their features once; None computes them anew."""

    training: tf.data.Dataset
    validation: tf.data.Dataset
    steps: int
    batch_size: int
    classes: int
    class_weights: Mapping[int, float] | None
    calibration: Images
    images: ImageSource | None = None


@dataclass(frozen=True, eq=False)
class FitOutcome:
    """trained: the sites inside what the stage trained. validation_loss: of the weights it left in the model.
    notes: what a person should know about it."""

    trained: Sequence[BNSite]
    validation_loss: float
    notes: tuple[str, ...] = ()


Log = Callable[[int, Mapping[str, float]], None]


def fit_stage(
    trainee: Trainee,
    policy: Policy,
    stage: Stage,
    title: str,
    material: Material,
    progress: Progress,
    log: Log,
    before: float | None = None,
    *,
    epochs: int | None = None,
) -> FitOutcome:
    """Train one stage, or its first `epochs` epochs, and leave the model with its best weights, by validation loss.

    log: called with (epoch from 1, metrics) after every epoch. before: validation loss at the start,
    where it is known. Raises DivergedError where the loss left the finite numbers and where the stage took a network
    that knew something back to guessing; the last good weights are in the model then.
    """
    trained = choose_trained(trainee, stage.train)
    policy.prepare(trainee.sites, trained=trained, steps_per_epoch=material.steps)
    part = range(stage.epochs if epochs is None else epochs)
    with fast_sites(trainee.model, trainee.sites):
        compile_stage(trainee.model, stage, material.steps)
        model, fed = _without_backbone(trainee, stage, title, material, progress)
        loss = _fit(model, stage, title, fed, progress, log, before, part)
    return _averaged(trainee, policy, stage, title, material, FitOutcome(trained, loss), part)


def fit_frozen_epochs(
    trainee: Trainee,
    policy: Policy,
    stage: Stage,
    title: str,
    material: Material,
    progress: Progress,
    log: Log,
    before: float | None = None,
) -> FitOutcome:
    """Go on with a stage after `fit_stage` for its last epochs, in which no running statistics follow.

    The optimizer goes on where it was and the learning rate where the schedule is. Otherwise as `fit_stage`.
    """
    trained = choose_trained(trainee, stage.train)
    policy.prepare(trainee.sites, trained=trained, steps_per_epoch=material.steps)
    policy.prepare_frozen_epochs(trainee.sites, trained=trained)
    part = range(stage.epochs - policy.frozen_epochs, stage.epochs)
    optimizer = trainee.model.optimizer
    # epochs that early stopping left out count for the schedule
    optimizer.iterations.assign(part.start * material.steps)
    last = "the last" if len(part) == 1 else f"the last {len(part)}"
    title = f"{title}, {last} with running statistics that stay"
    with fast_sites(trainee.model, trainee.sites):
        _compile(trainee.model, optimizer)
        model, fed = _without_backbone(trainee, stage, title, material, progress)
        loss = _fit(model, stage, title, fed, progress, log, before, part)
    return _averaged(trainee, policy, stage, title, material, FitOutcome(trained, loss), part)


def following_epochs(policy: Policy, stages: Sequence[Stage], number: int) -> int:
    """How many epochs of a stage come before those that the policy freezes; number counts from 0."""
    last = number == len(stages) - 1
    return stages[number].epochs - (policy.frozen_epochs if last else 0)


def _without_backbone(
    trainee: Trainee, stage: Stage, title: str, material: Material, progress: Progress
) -> tuple[keras.Model, Material]:
    """The compiled head and the features of the images, where nothing else of the compiled model trains;
    the model and the images themselves where they cannot be kept."""
    if stage.train != "head" or stage.cache_features == "off" or material.images is None:
        return trainee.model, material
    try:
        cached = cached_head_stage(
            trainee.model,
            trainee.backbone,
            material.images,
            stage.cache_features,
            stage.cached_views,
            progress=progress,
        )
    except NotCacheable as reason:
        progress.note(f"{title}: every epoch runs the backbone: {reason}")
        return trainee.model, material
    # the model's own optimizer: what comes after the training asks the model for it
    _compile(cached.head, trainee.model.optimizer)
    return cached.head, replace(material, training=cached.training, validation=cached.validation)


def _fit(
    model: keras.Model,
    stage: Stage,
    title: str,
    material: Material,
    progress: Progress,
    log: Log,
    before: float | None,
    part: range,
) -> float:
    """The validation loss of the best epoch among `part` (from 0), whose weights are in the model then."""
    best = BestWeights(stage.early_stopping, before)
    watch = DivergenceWatch(title, material.steps, material.classes)
    progress.stage(title, stage.epochs, material.steps, material.batch_size)
    try:
        model.fit(
            material.training,
            validation_data=material.validation,
            initial_epoch=part.start,
            epochs=part.stop,
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
    return best.best


def _averaged(
    trainee: Trainee,
    policy: Policy,
    stage: Stage,
    title: str,
    material: Material,
    fitted: FitOutcome,
    part: range,
) -> FitOutcome:
    """At the end of a stage with `ema`: the average of its weights, if that is no worse on validation."""
    if stage.ema is None or part.stop < stage.epochs:
        return fitted
    model, notes, best = trainee.model, list[str](), fitted.validation_loss
    kept, average = keep_if_no_worse(
        model,
        lambda: put_average(model, trainee.sites, policy, material.calibration, notes.append),
        lambda: float(model.evaluate(material.validation, verbose=0, return_dict=True)["loss"]),
        best,
    )
    outcome = "kept" if kept else "not kept: the weights are those of the best epoch"
    said = f"{title}: the average of the weights has validation loss {average:.4f}, the best epoch {best:.4f}"
    return FitOutcome(fitted.trained, average if kept else best, (*notes, f"{said}; {outcome}"))


def refuse_collapse(title: str, before: float | None, after: float, classes: int) -> None:
    """Raise DivergedError where a network fell back to guessing: dead units leave a finite loss, ln(classes)."""
    guessing = math.log(classes)
    if before is not None and before < KNOWS_SOMETHING * guessing and after > GUESSES * guessing:
        raise DivergedError(
            f"{title}: the network collapsed: its lowest validation loss is {after:.3f}, guessing has {guessing:.3f}, "
            f"and it began at {before:.3f}; lower the learning rate of this stage (frozen statistics need a lower one "
            "than batch statistics), or lengthen its warmup"
        )


def compile_stage(model: keras.Model, stage: Stage, steps: int) -> None:
    """Compile for one stage: optimizer, schedule, loss; XLA only where there is an accelerator ("auto")."""
    _compile(model, optimizer_for(stage, steps))


def _compile(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    model.compile(
        optimizer=optimizer,
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile="auto",
    )
