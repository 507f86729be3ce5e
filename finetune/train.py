"""The trainer: one stage at a time, the BN policy applied before every compile."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import keras

from finetune.averaging import keep_if_no_worse, put_average
from finetune.batch_sizes import Leg, legs, steps_of
from finetune.batchnorm.fast_sites import fast_sites
from finetune.batchnorm.horizon import MOST_LEFT, Stretch, share_left
from finetune.batchnorm.sites import BNSite
from finetune.compiling import compile_stage, compile_with
from finetune.distribution.loop import evaluate
from finetune.distribution.replicas import ALONE, Replicas
from finetune.feature_cache import ImageSource, NotCacheable, cached_head_stage
from finetune.fitting import Feed, Log, Watched, fit_legs, legs_ahead
from finetune.keeping import Keeping
from finetune.objective import Labels
from finetune.optimizer import count_batches
from finetune.orders import Orders
from finetune.policies.base import Images, Policy
from finetune.progress import Progress
from finetune.standing import Standing
from finetune.trained_part import Trainee, choose_trained

if TYPE_CHECKING:
    import tensorflow as tf

    from finetune.stage import Stage


@dataclass(frozen=True, eq=False)
class Material:
    """Batched data for the trainer. steps: training batches an epoch; classes: how many there are.
    images: what the batches are made from; None trains on these batches alone, whatever a stage says about their
    size, and computes features anew. labels: those of the training batches. guessing: the loss of guessing, in nats;
    that of one class out of all where it is None. replicas: share every training batch."""

    training: Orders
    validation: tf.data.Dataset
    steps: int
    batch_size: int
    classes: int
    class_weights: Mapping[int, float] | None
    calibration: Images
    images: ImageSource | None = None
    labels: Labels = "numbers"
    guessing: float | None = None
    replicas: Replicas = ALONE


@dataclass(frozen=True, eq=False)
class Resumed:
    """A stage that goes on. standing: where it stood. put_back: gives a compiled model its variables and those of its
    optimizer. drawn: orders of the batches that stages share."""

    standing: Standing
    put_back: Callable[[keras.Model], None]
    drawn: int


@dataclass(frozen=True, eq=False)
class FitOutcome:
    """trained: the sites inside what the stage trained. validation_loss: of the weights it left in the model.
    notes: what a person should know about it."""

    trained: Sequence[BNSite]
    validation_loss: float
    notes: tuple[str, ...] = ()


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
    keeping: Keeping | None = None,
    resumed: Resumed | None = None,
) -> FitOutcome:
    """Train one stage, or its first `epochs` epochs, and leave the model with its best weights, by validation loss.

    log: called with (epoch from 1, metrics) after every epoch. before: validation loss at the start,
    where it is known. keeping: has kept where the stage stands. resumed: where it stood.
    Raises DivergedError where the loss left the finite numbers and where the stage took a network
    that knew something back to guessing; the last good weights are in the model then. Raises KeyboardInterrupt
    where somebody wanted to end, when that is kept.
    """
    trained = choose_trained(trainee, stage.train)
    part = range(stage.epochs if epochs is None else epochs)
    ahead = legs_of(stage, material, part)
    first = (legs_ahead(ahead, resumed.standing if resumed else None) or ahead)[0]
    policy.prepare(trainee.sites, trained=trained, steps_per_epoch=first.steps)
    with fast_sites(trainee.model, trainee.sites):
        labels = training_labels(stage, material)
        steps = steps_of(legs_of(stage, material))
        compile_stage(trainee.model, stage, steps, labels=labels, backbone=trainee.backbone)
        if resumed:
            resumed.put_back(trainee.model)
            material.training.skip_to(resumed.drawn)
        model, feed = _without_backbone(trainee, stage, title, material, progress)

        def turn(leg: Leg) -> None:
            policy.prepare(trainee.sites, trained=trained, steps_per_epoch=leg.steps)
            compile_with(model, trainee.model.optimizer, labels)

        stale = _left(trainee.sites, ahead) > MOST_LEFT
        watched = Watched(
            title,
            stage.epochs,
            progress,
            log,
            before,
            stage.early_stopping,
            stale,
            keeping,
            resumed.standing if resumed else None,
            trainee.sites,
        )
        loss = fit_legs(model, ahead, feed, watched, turn)
    _without_shares(trainee.model, stage, material)
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
    part = range(stage.epochs - policy.frozen_epochs, stage.epochs)
    ahead = legs_of(stage, material, part)
    policy.prepare(trainee.sites, trained=trained, steps_per_epoch=ahead[0].steps)
    policy.prepare_frozen_epochs(trainee.sites, trained=trained)
    optimizer = trainee.model.optimizer
    # epochs that early stopping left out count for the schedule
    count_batches(optimizer, steps_of(legs_of(stage, material, range(part.start))))
    last = "the last" if len(part) == 1 else f"the last {len(part)}"
    title = f"{title}, {last} with running statistics that stay"
    with fast_sites(trainee.model, trainee.sites):
        compile_with(trainee.model, optimizer, training_labels(stage, material))
        model, feed = _without_backbone(trainee, stage, title, material, progress)
        watched = Watched(title, stage.epochs, progress, log, before, stage.early_stopping)
        # nothing follows, so nothing depends on the number of steps an epoch
        loss = fit_legs(model, ahead, feed, watched, lambda leg: None)
    _without_shares(trainee.model, stage, material)
    return _averaged(trainee, policy, stage, title, material, FitOutcome(trained, loss), part)


def _left(sites: Sequence[BNSite], ahead: Sequence[Leg]) -> float:
    """The largest share of any site's running statistics that the legs leave as it was; 0 where none follows."""
    steps = steps_of(ahead)
    following = [site for site in sites if site.calls and site.mode == "batch"]
    return max((share_left([Stretch(site.momentum, steps)]) for site in following), default=0.0)


def following_epochs(policy: Policy, stages: Sequence[Stage], number: int) -> int:
    """How many epochs of a stage come before those that the policy freezes; number counts from 0."""
    last = number == len(stages) - 1
    return stages[number].epochs - (policy.frozen_epochs if last else 0)


def legs_of(stage: Stage, material: Material, part: range | None = None) -> tuple[Leg, ...]:
    """Those of a stage, or of a part of its epochs, on this material."""
    if material.images is None:
        return (Leg(part or range(stage.epochs), material.batch_size, material.steps),)
    return legs(stage, material.batch_size, material.images.splits.train.count, part)


def _without_backbone(
    trainee: Trainee, stage: Stage, title: str, material: Material, progress: Progress
) -> tuple[keras.Model, Feed]:
    """The compiled head and the features of the images, where nothing else of the compiled model trains;
    the model and the images themselves where they cannot be kept."""
    source = material.images
    if stage.train != "head" or stage.cache_features == "off" or source is None:
        return trainee.model, feed_of(material, stage)
    try:
        cached = cached_head_stage(
            trainee.model,
            trainee.backbone,
            source,
            stage.cache_features,
            stage.cached_views,
            progress=progress,
        )
    except NotCacheable as reason:
        progress.note(f"{title}: every epoch runs the backbone: {reason}")
        return trainee.model, feed_of(material, stage)
    # the model's own optimizer: what comes after the training asks the model for it
    compile_with(cached.head, trainee.model.optimizer, training_labels(stage, material))
    fed = replace(material, training=Orders(cached.training), validation=cached.validation)
    return cached.head, feed_of(fed, stage, cached.rebatched)


def training_labels(stage: Stage, material: Material) -> Labels:
    """What the training labels of a stage are; those of multi-label images are never smoothed."""
    return "shares" if stage.label_smoothing > 0 else material.labels


def _without_shares(model: keras.Model, stage: Stage, material: Material) -> None:
    """Who evaluates or saves the model finds it compiled as any other."""
    if training_labels(stage, material) == "shares":
        compile_with(model, model.optimizer)


def feed_of(
    material: Material,
    stage: Stage,
    batches: Callable[[ImageSource], tf.data.Dataset] = ImageSource.training_batches,
) -> Feed:
    """What a stage reads of the material. batches: makes those of another size than the material's."""

    def training(leg: Leg) -> Orders:
        if leg.batch_size == material.batch_size or material.images is None:
            return material.training
        return Orders(batches(material.images.rebatched(leg.batch_size, leg.epochs.start)))

    return Feed(
        training,
        material.validation,
        material.classes,
        material.class_weights,
        stage.label_smoothing,
        math.log(material.classes) if material.guessing is None else material.guessing,
        material.replicas,
    )


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
        lambda: evaluate(material.replicas, model, material.validation)["loss"],
        best,
    )
    outcome = "kept" if kept else "not kept: the weights are those of the best epoch"
    said = f"{title}: the average of the weights has validation loss {average:.4f}, the best epoch {best:.4f}"
    return FitOutcome(fitted.trained, average if kept else best, (*notes, f"{said}; {outcome}"))
