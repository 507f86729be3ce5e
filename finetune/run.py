"""The story of a run, top to bottom; the only file that knows all of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from finetune.assemble import assemble
from finetune.backbones.base import BuiltBackbone
from finetune.batchnorm import proof
from finetune.batchnorm.moments import PopulationMoments
from finetune.batchnorm.population import Measurement, input_moments
from finetune.batchnorm.shift import shift
from finetune.batchnorm.sites import BNSite, find_sites, restored_momentum
from finetune.datasets.base import Splits
from finetune.datasets.batches import class_weights, evaluation_batches, images_only, training_batches
from finetune.errors import DivergedError, ProofError
from finetune.evaluate import evaluate
from finetune.export import export
from finetune.policies.base import Finish
from finetune.progress import Progress
from finetune.provenance import describe_splits, provenance, versions
from finetune.recipe import Recipe
from finetune.recipe_file import resolved
from finetune.report import write_report
from finetune.result import Check, EpochRecord, Evaluation, RunResult, SiteRecord
from finetune.run_folder import append_metrics, clear_output_errors, new_run_folder
from finetune.stopwatch import Stopwatch
from finetune.tracking import open_run
from finetune.train import Material, Trainee, fit_stage

EVALUATION_BATCH = 128
"""Images a batch wherever nothing is trained; also what one-pass statistics are batched by."""

REFERENCE_IMAGES = 2048
"""Training images, at most, that the reference statistics are measured on."""


@dataclass(frozen=True, eq=False)
class RunContext:
    """What the steps of one run share."""

    recipe: Recipe
    splits: Splits
    built: BuiltBackbone
    trainee: Trainee
    folder: Path
    tracking: Any
    progress: Progress
    watch: Stopwatch
    epochs: list[EpochRecord] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Trained:
    """What training leaves behind: the readings for the proof and what the policy measured."""

    timeline: proof.Timeline
    finish: Finish
    momentum: Mapping[str, float]


def run(
    recipe: Recipe, *, runs_folder: Path, tracking_uri: str | None = None, progress: Progress | None = None
) -> RunResult:
    """Fine-tune as the recipe says, prove the policy, and leave a run folder and an MLflow run.

    tracking_uri: goes before the recipe's own and MLFLOW_TRACKING_URI.
    Raises InputError, before anything is written, where the recipe cannot be carried out; DivergedError
    with the last good weights in the run folder; ProofError where the policy did not hold: the report
    is written then, and no model.
    """
    progress = progress or Progress()
    watch = Stopwatch()
    with precision(recipe.precision):
        keras.utils.set_random_seed(recipe.seed)
        progress.phase(f"opening the data and building the backbone ({recipe.backbone.source})")
        with watch.phase("data"):
            splits = recipe.data.load(recipe.data.image_size or recipe.backbone.default_image_size, recipe.seed)
        with watch.phase("model"):
            built, trainee = build(recipe, splits)
        folder = new_run_folder(runs_folder, recipe.name)
        with clear_output_errors(folder), open_tracking(recipe, folder, tracking_uri, progress) as tracking:
            context = RunContext(recipe, splits, built, trainee, folder, tracking, progress, watch)
            return fine_tune(context)


def fine_tune(context: RunContext) -> RunResult:
    """Train, prove, evaluate, and publish what was proven."""
    trained = train(context)
    context.progress.phase("proving the policy and evaluating on the test split")
    with context.watch.phase("proof"):
        checks = prove(context, trained)
    with context.watch.phase("evaluation"):
        test = evaluate_test(context)
    with context.watch.phase("reference statistics"):
        reference, images = measure_reference(context)
    result = describe(context, trained, checks, test, images)
    publish(context, result, reference)
    return result


def build(recipe: Recipe, splits: Splits) -> tuple[BuiltBackbone, Trainee]:
    """The backbone with its head as one model, and its sites."""
    built = recipe.backbone.build(splits.image_size)
    model = assemble(built, recipe.head, splits.class_names, splits.image_size)
    one_image = np.zeros((1, splits.image_size, splits.image_size, 3), np.float32)
    return built, Trainee(model, built.model, find_sites(model, one_image))


def train(context: RunContext) -> Trained:
    """The policy before, while and after the stages; the statistics are read at every turning point."""
    recipe, trainee, policy = context.recipe, context.trainee, context.recipe.batchnorm
    calibration = partial(images_only, context.splits.calibration, EVALUATION_BATCH)
    pretrained = proof.read(trainee.sites)
    with context.watch.phase("policy"):
        start = policy.start(trainee.model, trainee.sites, calibration)
    started = proof.read(trainee.sites)
    with context.watch.phase("training"), restored_momentum(trainee.sites):
        trained_paths = train_stages(context, pretrained)
        momentum = {site.path: site.momentum for site in trainee.sites}
    trained = proof.read(trainee.sites)
    with context.watch.phase("policy"):
        finish = policy.finish_training(trainee.model, trainee.sites, calibration, validation_loss(context))
    kept = finish.measurement if finish.kept else None
    finished = proof.read(trainee.sites)
    timeline = proof.Timeline(pretrained, started, trained, finished, start, kept, trained_paths)
    return Trained(timeline, finish, momentum)


def train_stages(context: RunContext, pretrained: tuple[proof.Reading, ...]) -> frozenset[str]:
    """All stages in order; the paths of the sites inside what any of them trained."""
    recipe, trainee = context.recipe, context.trainee
    material = prepare_material(context)
    trained: set[str] = set()
    for number, stage in enumerate(recipe.stages):
        title = f"stage {number + 1} of {len(recipe.stages)}: {stage_in_words(stage)}"
        log = partial(log_epoch, context, pretrained, number)
        try:
            sites = fit_stage(trainee, recipe.batchnorm, stage, title, material, context.progress, log)
        except DivergedError as error:
            weights = context.folder / "last_good.weights.h5"
            trainee.model.save_weights(weights)
            raise DivergedError(f"{error}; the last good weights are in {weights}") from None
        trained.update(site.path for site in sites if site.calls)
    return frozenset(trained)


def stage_in_words(stage: Any) -> str:
    part = stage.train if isinstance(stage.train, str) else f"from {stage.train.layer} on"
    return f"train {part}, {stage.epochs} epochs, {stage.optimizer} at {stage.learning_rate:g}"


def prepare_material(context: RunContext) -> Material:
    data, splits = context.recipe.data, context.splits
    weights = class_weights(splits.train, len(splits.class_names)) if data.class_weights == "balanced" else None
    batch_size = min(data.batch_size, splits.train.count)
    return Material(
        training=training_batches(splits.train, data, context.recipe.seed),
        validation=evaluation_batches(splits.validation, EVALUATION_BATCH),
        steps=splits.train.count // batch_size,
        batch_size=batch_size,
        classes=len(splits.class_names),
        class_weights=weights,
    )


def log_epoch(
    context: RunContext,
    pretrained: tuple[proof.Reading, ...],
    stage: int,
    epoch: int,
    metrics: Mapping[str, float],
) -> None:
    """One epoch to the run folder and to MLflow, with how far the running statistics have moved."""
    shifts = [shift_in_metrics(s) for s in shifts_since(pretrained, context.trainee.sites)]
    mean = {name: float(np.mean([s[name] for s in shifts])) for name in shifts[0]} if shifts else {}
    record = EpochRecord(stage + 1, epoch, len(context.epochs) + 1, {**metrics, **mean})
    context.epochs.append(record)
    append_metrics(context.folder, {"stage": record.stage, "epoch": epoch, "step": record.step, **record.metrics})
    context.tracking.log_epoch(record.step, record.metrics)


def shifts_since(readings: Sequence[proof.Reading], sites: Sequence[BNSite]) -> list[Shift]:
    """The shift of every built site since a reading of the same sites."""
    built = [site for site in sites if site.built]
    return [
        shift(before.statistics, site.statistics, site.epsilon)
        for before, site in zip(readings, built, strict=True)
    ]


def shift_in_metrics(moved: Shift) -> dict[str, float]:
    return {"bn_shift/mean": moved.mean, "bn_shift/log_std": moved.log_std, "bn_shift/kl": moved.kl}


def validation_loss(context: RunContext) -> Callable[[], float]:
    batches = evaluation_batches(context.splits.validation, EVALUATION_BATCH)
    return lambda: float(context.trainee.model.evaluate(batches, verbose=0, return_dict=True)["loss"])


def prove(context: RunContext, trained: Trained) -> tuple[Check, ...]:
    images = next(iter(images_only(context.splits.validation, 16, limit=16)))
    promise = context.recipe.batchnorm.promise
    return proof.check(promise, trained.timeline, context.trainee.sites, context.trainee.model, images)


def evaluate_test(context: RunContext) -> Evaluation:
    batches = evaluation_batches(context.splits.test, EVALUATION_BATCH)
    return evaluate(context.trainee.model, batches, len(context.splits.class_names))


def measure_reference(context: RunContext) -> tuple[dict[str, PopulationMoments], int]:
    """Population moments of every site's input on training images under the final weights."""
    batches = images_only(context.splits.train, EVALUATION_BATCH, limit=REFERENCE_IMAGES)
    sites = [site for site in context.trainee.sites if site.calls]
    moments, images = input_moments(context.trainee.model, sites, batches)
    return {site.path: m for site, m in zip(sites, moments, strict=True)}, images


def describe(
    context: RunContext, trained: Trained, checks: tuple[Check, ...], test: Evaluation, reference_images: int
) -> RunResult:
    """Everything found out, as plain values."""
    recipe, splits, timeline = context.recipe, context.splits, trained.timeline
    return RunResult(
        name=context.folder.name,
        folder=context.folder,
        recipe=resolved(recipe),
        policy=recipe.batchnorm.policy,
        class_names=splits.class_names,
        dataset=describe_splits(splits),
        epochs=tuple(context.epochs),
        sites=site_records(context, trained),
        test=test,
        checks=checks,
        notes=(*splits.notes, *finish_in_words(trained.finish)),
        seconds=dict(context.watch.seconds),
        provenance=provenance(
            resolved(recipe), context.built.origin, splits, timeline.start, trained.finish, reference_images
        ),
    )


def site_records(context: RunContext, trained: Trained) -> tuple[SiteRecord, ...]:
    built = [site for site in context.trainee.sites if site.built]
    batch = min(context.recipe.data.batch_size, context.splits.train.count)
    return tuple(
        SiteRecord(
            index=index,
            path=site.path,
            channels=site.channels,
            momentum=trained.momentum[site.path],
            epsilon=site.epsilon,
            positions=site.positions * batch,
            shift_mean=moved.mean,
            shift_log_std=moved.log_std,
            shift_kl=moved.kl,
        )
        for index, (site, moved) in enumerate(
            zip(built, shifts_since(trained.timeline.pretrained, built), strict=True)
        )
    )


def finish_in_words(finish: Finish) -> tuple[str, ...]:
    if finish.measurement is None:
        return ()
    what = "kept" if finish.kept else "NOT kept: the running statistics are those of the training"
    return (
        f"running statistics measured anew on {finish.measurement.images} calibration images after training; "
        f"validation loss {finish.loss_before:.4f} -> {finish.loss_after:.4f}; {what}",
    )


def publish(context: RunContext, result: RunResult, reference: dict[str, PopulationMoments]) -> None:
    """Report and measures always; the model only when the policy held. Raises ProofError otherwise."""
    for note in result.notes:
        context.progress.note(note)
    context.progress.phase("writing the model, the report and MLflow")
    if result.verified:
        examples = next(iter(images_only(context.splits.test, 8, limit=8)))
        export(context.trainee.model, context.folder, context.splits.image_size, reference, result.provenance, ...)
    write_report(result, context.folder / "report.html")
    log_result(context.tracking, result)
    if not result.verified:
        raise ProofError(...)


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Compute in `name` inside the block; Keras' global setting is given back."""
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.mixed_precision.set_dtype_policy(before)
