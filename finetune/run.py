"""The story of a run, top to bottom; the only file that knows all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from finetune.assemble import assemble
from finetune.backbones.base import BuiltBackbone
from finetune.batchnorm import proof
from finetune.batchnorm.moments import PopulationMoments
from finetune.batchnorm.population import input_moments
from finetune.batchnorm.sites import find_sites, restored_momentum
from finetune.datasets.base import Splits
from finetune.datasets.batches import class_weights, evaluation_batches, images_only, training_batches
from finetune.describe import finish_in_words, mean_shift, shifts_since, site_records, stage_in_words
from finetune.errors import DivergedError, ProofError
from finetune.evaluate import evaluate
from finetune.export import EXPORTED, export
from finetune.masking import masked
from finetune.policies.base import Finish
from finetune.progress import Progress
from finetune.provenance import describe_splits, provenance, requirements
from finetune.recipe import Recipe, resolved
from finetune.recipe_file.yaml_text import write
from finetune.report import write_report
from finetune.result import Check, EpochRecord, RunResult
from finetune.run_folder import append_metrics, clear_output_errors, new_run_folder
from finetune.stopwatch import Stopwatch
from finetune.tracking import Tracker, log_result, open_run, store_uri
from finetune.train import Material, Trainee, fit_stage, kept_layers

if TYPE_CHECKING:
    import tensorflow as tf

EVALUATION_BATCH = 128
"""Images a batch wherever nothing is trained; also what one-pass statistics are batched by."""

REFERENCE_IMAGES = 2048
"""Training images, at most, that the reference statistics are measured on."""


@dataclass(frozen=True, eq=False)
class Running:
    """What the steps of one run share."""

    recipe: Recipe
    splits: Splits
    built: BuiltBackbone
    trainee: Trainee
    folder: Path
    tracking: Tracker
    progress: Progress
    watch: Stopwatch
    epochs: list[EpochRecord] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Trained:
    """What training leaves: the readings for the proof, the policy's finish, the momentum of each site."""

    timeline: proof.Timeline
    finish: Finish
    momentum: Mapping[str, float]


def run(
    recipe: Recipe, *, runs_folder: Path, tracking_uri: str | None = None, progress: Progress | None = None
) -> RunResult:
    """Fine-tune as the recipe says, prove the policy, and leave a run folder and an MLflow run.

    tracking_uri: goes before the recipe's own and MLFLOW_TRACKING_URI.
    Raises InputError, before anything is written, where the recipe cannot be carried out; DivergedError,
    with the last good weights in the run folder; ProofError where the policy did not hold: the report is
    written then, and no model.
    """
    progress, watch = progress or Progress(), Stopwatch()
    store = store_uri(tracking_uri or recipe.tracking.uri) if recipe.tracking.enabled else None
    with computing_in(recipe.precision):
        progress.phase(f"{recipe.name}: opening the data")
        with watch.phase("data"):
            splits = recipe.data.load(
                recipe.data.image_size or recipe.backbone.default_image_size, recipe.seed
            )
        progress.phase(f"building the backbone and its head for {len(splits.class_names)} classes")
        # after the data: preparing a dataset for the first time draws random numbers of its own
        keras.utils.set_random_seed(recipe.seed)
        with watch.phase("model"):
            built, trainee = build(recipe, splits)
        folder = new_run_folder(runs_folder, recipe.name)
        progress.phase(f"opening {folder}" + (f" and MLflow at {masked(store)}" if store else ""))
        with clear_output_errors(folder), open_tracking(recipe, folder, store, progress) as tracking:
            return fine_tune(Running(recipe, splits, built, trainee, folder, tracking, progress, watch))


def fine_tune(running: Running) -> RunResult:
    """Train, prove, evaluate, and publish what was proven."""
    write_recipe(running)
    trained = train(running)
    running.progress.phase("proving the policy, evaluating, measuring the reference statistics")
    with running.watch.phase("evaluation"):
        checks = prove(running, trained)
        reference, images = measure_reference(running)
        test = evaluate(running.trainee.model, batches_of(running, "test"), len(running.splits.class_names))
    recipe = shown(running.recipe)
    origins = provenance(
        recipe, running.built.origin, running.splits, trained.timeline.start, trained.finish, images
    )
    result = RunResult(
        name=running.folder.name,
        folder=running.folder,
        recipe=recipe,
        policy=running.recipe.batchnorm.policy,
        class_names=running.splits.class_names,
        dataset=describe_splits(running.splits),
        epochs=tuple(running.epochs),
        sites=site_records(
            trained.timeline.pretrained, running.trainee.sites, trained.momentum, batch_size(running)
        ),
        test=test,
        checks=checks,
        notes=(*running.splits.notes, *finish_in_words(trained.finish)),
        seconds=running.watch.seconds,
        provenance=origins,
    )
    publish(running, result, reference)
    return result


def build(recipe: Recipe, splits: Splits) -> tuple[BuiltBackbone, Trainee]:
    """The backbone with its head as one model, and its sites. Raises InputError where they do not fit the recipe."""
    built = recipe.backbone.build(splits.image_size)
    for stage in recipe.stages:
        kept_layers(built.model, stage.train)
    model = assemble(built, recipe.head, splits.class_names, splits.image_size)
    one_image = np.zeros((1, splits.image_size, splits.image_size, 3), np.float32)
    return built, Trainee(model, built.model, find_sites(model, one_image))


def open_tracking(
    recipe: Recipe, folder: Path, store: str | None, progress: Progress
) -> AbstractContextManager[Tracker]:
    tags = {"bn.policy": recipe.batchnorm.policy, "run_folder": folder.name}
    return open_run(store, recipe.tracking.experiment, folder.name, resolved(recipe), tags, progress.note)


def shown(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe as it is written to files: without the password of the tracking store."""
    plain = resolved(recipe)
    if recipe.tracking.uri:
        plain["tracking"]["uri"] = masked(recipe.tracking.uri)
    return plain


def write_recipe(running: Running) -> None:
    running.folder.joinpath("recipe.yaml").write_text(write(shown(running.recipe)), encoding="utf-8")
    splits = running.splits
    for split in (splits.train, splits.validation, splits.test, splits.calibration):
        running.tracking.log_dataset(
            split.description, split.description, splits.digest, split.count, split.name
        )


def train(running: Running) -> Trained:
    """The policy before, while and after the stages; the statistics are read at every turning point."""
    trainee, policy = running.trainee, running.recipe.batchnorm
    calibration = partial(images_only, running.splits.calibration, EVALUATION_BATCH)
    pretrained = proof.read(trainee.sites)
    with running.watch.phase("policy"):
        start = policy.start(trainee.model, trainee.sites, calibration)
    started = proof.read(trainee.sites)
    with running.watch.phase("training"), restored_momentum(trainee.sites):
        trained_paths = train_stages(running, pretrained)
        momentum = {site.path: site.momentum for site in trainee.sites}
    trained = proof.read(trainee.sites)
    with running.watch.phase("policy"):
        finish = policy.finish_training(trainee.model, trainee.sites, calibration, validation_loss(running))
    kept = finish.measurement if finish.kept else None
    finished = proof.read(trainee.sites)
    timeline = proof.Timeline(pretrained, started, trained, finished, start, kept, trained_paths)
    return Trained(timeline, finish, momentum)


def train_stages(running: Running, pretrained: Sequence[proof.Reading]) -> frozenset[str]:
    """All stages in order; the paths of the sites inside what any of them trained."""
    recipe, trainee, trained = running.recipe, running.trainee, set[str]()
    material, loss = prepare(running), None
    for number, stage in enumerate(recipe.stages):
        title = stage_in_words(number, recipe.stages)
        log = partial(log_epoch, running, pretrained, number)
        try:
            fitted = fit_stage(trainee, recipe.batchnorm, stage, title, material, running.progress, log, loss)
        except DivergedError as error:
            weights = running.folder / "last_good.weights.h5"
            trainee.model.save_weights(weights)
            raise DivergedError(f"{error}; the last good weights are in {weights}") from None
        loss = fitted.validation_loss
        trained.update(site.path for site in fitted.trained if site.calls)
    return frozenset(trained)


def prepare(running: Running) -> Material:
    """The data as the trainer takes them."""
    recipe, splits = running.recipe, running.splits
    classes = len(splits.class_names)
    balanced = recipe.data.class_weights == "balanced"
    return Material(
        training=training_batches(splits.train, recipe.data, recipe.seed),
        validation=batches_of(running, "validation"),
        steps=splits.train.count // batch_size(running),
        batch_size=batch_size(running),
        classes=classes,
        class_weights=class_weights(splits.train, classes) if balanced else None,
    )


def batch_size(running: Running) -> int:
    return min(running.recipe.data.batch_size, running.splits.train.count)


def batches_of(running: Running, split: str) -> tf.data.Dataset:
    return evaluation_batches(getattr(running.splits, split), EVALUATION_BATCH)


def log_epoch(
    running: Running,
    pretrained: Sequence[proof.Reading],
    stage: int,
    epoch: int,
    metrics: Mapping[str, float],
) -> None:
    """One epoch to the run folder and to MLflow, with how far the running statistics have moved."""
    moved = mean_shift(shifts_since(pretrained, running.trainee.sites))
    record = EpochRecord(stage + 1, epoch, len(running.epochs) + 1, {**metrics, **moved})
    running.epochs.append(record)
    places = {"stage": record.stage, "epoch": record.epoch, "step": record.step}
    append_metrics(running.folder, {**places, **record.metrics})
    running.tracking.log_epoch(record.step, record.metrics)


def validation_loss(running: Running) -> Callable[[], float]:
    batches = batches_of(running, "validation")
    return lambda: float(running.trainee.model.evaluate(batches, verbose=0, return_dict=True)["loss"])


def prove(running: Running, trained: Trained) -> tuple[Check, ...]:
    """What the policy promised, on the model as it will be exported."""
    images = next(iter(images_only(running.splits.validation, 16)))
    promise = running.recipe.batchnorm.promise
    return proof.check(promise, trained.timeline, running.trainee.sites, running.trainee.model, images)


def measure_reference(running: Running) -> tuple[dict[str, PopulationMoments], int]:
    """Population moments of every site's input on training images under the final weights."""
    sites = [site for site in running.trainee.sites if site.calls]
    batches = images_only(running.splits.train, EVALUATION_BATCH, limit=REFERENCE_IMAGES)
    moments, images = input_moments(running.trainee.model, sites, batches)
    return {site.path: m for site, m in zip(sites, moments, strict=True)}, images


def publish(running: Running, result: RunResult, reference: Mapping[str, PopulationMoments]) -> None:
    """The report always; the model, in the folder and in MLflow, only where the policy held."""
    running.progress.phase("writing the report, the model and MLflow")
    for note in result.notes:
        running.progress.note(note)
    if result.verified:
        with running.watch.phase("export"):
            publish_model(running, result, reference)
    write_report(result, running.folder / "report.html")
    log_result(running.tracking, result)
    if not result.verified:
        broken = "; ".join(f"{check.name}: {check.detail}" for check in result.checks if not check.passed)
        raise ProofError(
            f"policy {result.policy} did not hold: {broken}; no model was written; "
            f"the evidence is in {running.folder / 'report.html'}"
        )


def publish_model(running: Running, result: RunResult, reference: Mapping[str, PopulationMoments]) -> None:
    model, folder, tracking = running.trainee.model, running.folder, running.recipe.tracking
    images = np.asarray(next(iter(images_only(running.splits.test, 8))))
    export(model, folder, running.splits.image_size, reference, result.provenance, images)
    if not tracking.log_model:
        return
    probabilities = np.asarray(model(images, training=False))
    beside = [folder / name for name in EXPORTED]
    uri = running.tracking.log_model(
        folder / "model.keras", images, probabilities, requirements(), beside=beside
    )
    if uri and tracking.register_as:
        version = running.tracking.register(uri, tracking.register_as)
        running.progress.note(f"registered as {tracking.register_as} version {version}")


@contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """Compute in this precision inside the block; Keras' global setting is given back."""
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.mixed_precision.set_dtype_policy(before)
