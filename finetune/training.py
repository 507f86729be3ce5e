"""The training of a run: the policy before, while and after the stages, and what the proof needs of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.backbones.base import BuiltBackbone
from finetune.batch_sizes import legs
from finetune.batchnorm.moments import RunningStatistics
from finetune.batchnorm.sites import restored_settings, synchronised
from finetune.batchnorm.timeline import Reading, Timeline, read
from finetune.calibration_error import expected_calibration_error
from finetune.checkpoint import Checkpoint, put_back, save, values_of, variables_of
from finetune.datasets.base import Split, Splits
from finetune.datasets.batches import class_weights, evaluation_batches, images_only, labels_of
from finetune.describe import finish_in_words, mean_shift, shifts_since, stage_in_words
from finetune.distribution.loop import evaluate
from finetune.distribution.replicas import ALONE, Replicas
from finetune.distribution.shares import SharedImages
from finetune.errors import DivergedError
from finetune.evaluate import predicted
from finetune.feature_cache import ImageSource
from finetune.flag_scores import entropy_of_guessing
from finetune.keeping import Keeping
from finetune.orders import Orders
from finetune.pace import Pace
from finetune.policies.base import Finish, Images
from finetune.progress import Progress
from finetune.recipe import Recipe
from finetune.result import EpochRecord
from finetune.run_folder import append_metrics, rewrite_metrics
from finetune.standing import Standing
from finetune.stopwatch import Stopwatch
from finetune.temperature import at_temperature, divide_logits, fitted_temperature
from finetune.tracking import Tracker
from finetune.train import Material, Resumed, fit_frozen_epochs, fit_stage, following_epochs
from finetune.trained_part import Trainee, choose_trained
from finetune.training_faults import faults_in_words

if TYPE_CHECKING:
    import tensorflow as tf

EVALUATION_BATCH = 128
"""Images a batch wherever nothing is trained; also what one-pass statistics are batched by."""


@dataclass(frozen=True, eq=False)
class Running:
    """What the steps of one run share. pace: of the checkpoints that it leaves; None leaves none. checkpoint: the one
    that it goes on from. replicas: the chief among their processes is the one that writes."""

    recipe: Recipe
    splits: Splits
    built: BuiltBackbone
    trainee: Trainee
    folder: Path
    tracking: Tracker
    progress: Progress
    watch: Stopwatch
    pace: Pace | None = None
    checkpoint: Checkpoint | None = None
    replicas: Replicas = ALONE
    epochs: list[EpochRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, words: str) -> None:
        """Say it now, and keep it for the report."""
        self.notes.append(words)
        self.progress.note(words)


@dataclass(frozen=True, eq=False)
class Trained:
    """What training leaves: the readings for the proof, the policy's finish, the momentum of each site."""

    timeline: Timeline
    finish: Finish
    momentum: Mapping[str, float]


def train(running: Running) -> Trained:
    """The policy before, while and after the stages; the sites are read at every turning point.

    Raises InputError where memory does not suffice for a batch, DataError where images went away.
    """
    with faults_in_words(batch_size(running.recipe, running.splits)):
        return _train(running)


def _train(running: Running) -> Trained:
    trainee, policy, watch = running.trainee, running.recipe.policy, running.watch
    calibration, material = calibration_of(running), material_of(running)
    pretrained = read(trainee.sites)
    with watch.phase("policy"):
        start = policy.start(trainee.model, trainee.sites, calibration, running.note)
    started = read(trainee.sites)
    with restored_settings(trainee.sites):
        with watch.phase("training"), _shared_batches(running):
            trained_paths, loss = train_stages(running, material, pretrained)
        trained, replicas = read(trainee.sites), replicas_hold(running)
        with watch.phase("policy"):
            finish = policy.finish_training(
                trainee.model, trainee.sites, calibration, validation_loss(running), running.note
            )
        for words in finish_in_words(finish, policy.frozen_epochs):
            running.note(words)
        held = read(trainee.sites) if policy.frozen_epochs else None
        if held:
            with watch.phase("training"), _shared_batches(running):
                train_frozen_epochs(running, material, pretrained, finish.loss(loss))
        momentum = {site.path: site.momentum for site in trainee.sites}
    if running.recipe.head.temperature == "fit":
        with watch.phase("training"):
            fit_confidence(running)
    kept = finish.measurement if finish.kept else None
    finished = read(trainee.sites)
    timeline = Timeline(pretrained, started, trained, finished, start, kept, trained_paths, held, replicas)
    return Trained(timeline, finish, momentum)


def _shared_batches(running: Running) -> AbstractContextManager[None]:
    """Inside the block the sites see the batches of all replicas together."""
    if running.replicas.strategy is None:
        return nullcontext()
    return synchronised([site for site in running.trainee.sites if site.built])


def replicas_hold(running: Running) -> list[list[RunningStatistics]] | None:
    """What each replica holds at every built site; None where there is one."""
    if running.replicas.strategy is None:
        return None
    return running.replicas.statistics([site for site in running.trainee.sites if site.built])


def train_stages(
    running: Running, material: Material, pretrained: Sequence[Reading]
) -> tuple[frozenset[str], float]:
    """All stages in order, but for the epochs that the policy freezes at the end.

    The paths of the sites inside what any of them trained, and the validation loss.
    """
    recipe, trainee, trained = running.recipe, running.trainee, set[str]()
    found = running.checkpoint
    loss = found.before if found else None
    for number, stage in enumerate(recipe.stages):
        if found and number < found.stage:
            trained.update(site.path for site in choose_trained(trainee, stage.train) if site.calls)
            continue
        title = stage_in_words(number, recipe.stages)
        with last_good_weights_kept(running):
            fitted = fit_stage(
                trainee,
                recipe.policy,
                stage,
                title,
                material,
                running.progress,
                partial(log_epoch, running, pretrained, number),
                loss,
                epochs=following_epochs(recipe.policy, recipe.stages, number),
                keeping=Keeping(
                    partial(keep_checkpoint, running, running.pace, material, number, loss), running.pace
                )
                if running.pace
                else None,
                resumed=resumed(running, found) if found and number == found.stage else None,
            )
        for words in fitted.notes:
            running.note(words)
        loss = fitted.validation_loss
        trained.update(site.path for site in fitted.trained if site.calls)
    return frozenset(trained), fitted.validation_loss


def fit_confidence(running: Running) -> None:
    """The temperature of the validation images, put into the last layer of the head."""
    model, split = running.trainee.model, running.splits.validation
    probabilities, labels = predicted(model, evaluation_batches(split, EVALUATION_BATCH))
    temperature = fitted_temperature(probabilities, labels)
    divide_logits(model, temperature)
    before = expected_calibration_error(probabilities, labels)
    after = expected_calibration_error(at_temperature(probabilities, temperature), labels)
    running.note(
        f"temperature {temperature:.3f}: calibration error {before:.3f} -> {after:.3f} on the {split.count} validation "
        "images it was fitted on"
    )


def keep_checkpoint(
    running: Running, pace: Pace, material: Material, stage: int, before: float | None, standing: Standing
) -> None:
    """What it takes to go on after the step that has just been made."""
    model = running.trainee.model
    with pace.writing():
        checkpoint = Checkpoint(
            stage,
            before,
            standing,
            material.training.drawn,
            values_of(variables_of(model)),
            values_of(model.optimizer.variables),
            running.epochs,
            running.notes,
            running.watch.so_far(),
        )
        save(running.folder, checkpoint)


def resumed(running: Running, found: Checkpoint) -> Resumed:
    """The stage of a checkpoint, and the records of the run as they were then."""
    finished = "1 epoch" if len(found.epochs) == 1 else f"{len(found.epochs)} epochs"
    begun = f" and {found.standing.step} batches of the next" if found.standing.step else ""
    running.progress.phase(f"going on after {finished}{begun}")
    running.epochs[:], running.notes[:] = found.epochs, found.notes
    running.watch.add(found.seconds)
    if running.replicas.chief:
        rewrite_metrics(running.folder, [as_line(record) for record in running.epochs])
    for record in running.epochs:
        # those that MLflow knows already are not sent again
        running.tracking.log_epoch(record.step, record.metrics)
    return Resumed(found.standing, partial(put_back, found), found.drawn)


def train_frozen_epochs(
    running: Running, material: Material, pretrained: Sequence[Reading], loss: float
) -> None:
    """The epochs at the end of the last stage in which no running statistics follow."""
    recipe, last = running.recipe, len(running.recipe.stages) - 1
    title = stage_in_words(last, recipe.stages)
    log = partial(log_epoch, running, pretrained, last)
    with last_good_weights_kept(running):
        fitted = fit_frozen_epochs(
            running.trainee,
            recipe.policy,
            recipe.stages[last],
            title,
            material,
            running.progress,
            log,
            loss,
        )
    for words in fitted.notes:
        running.note(words)


@contextmanager
def last_good_weights_kept(running: Running) -> Iterator[None]:
    """Where a training diverges inside the block, its last good weights are saved in the run folder."""
    try:
        yield
    except DivergedError as error:
        weights = running.folder / "last_good.weights.h5"
        if running.replicas.chief:
            running.trainee.model.save_weights(weights)
        raise DivergedError(f"{error}; the last good weights are in {weights}") from None


def material_of(running: Running) -> Material:
    """The data as the trainer takes them."""
    recipe, splits = running.recipe, running.splits
    classes = len(splits.class_names)
    balanced = recipe.data.class_weights == "balanced"
    images = ImageSource(splits, recipe.data, recipe.seed, EVALUATION_BATCH)
    return Material(
        training=Orders(images.training_batches()),
        validation=batches_of(running, "validation"),
        steps=steps_per_epoch(recipe, splits),
        batch_size=batch_size(recipe, splits),
        classes=classes,
        class_weights=class_weights(splits.train, classes) if balanced else None,
        calibration=calibration_of(running),
        images=images,
        labels="flags" if splits.multi_label else "shares" if recipe.data.mix is not None else "numbers",
        guessing=entropy_of_guessing(labels_of(splits.train)) if splits.multi_label else None,
        replicas=running.replicas,
    )


def calibration_of(running: Running) -> Images:
    return shared(running, running.splits.calibration)


def shared(running: Running, split: Split) -> SharedImages:
    """The images of a split, of which each worker opens its share."""
    return SharedImages(
        partial(images_only, split, EVALUATION_BATCH), split.count, EVALUATION_BATCH, running.replicas
    )


def batch_size(recipe: Recipe, splits: Splits) -> int:
    """Images a training step where a stage has no size of its own: a split smaller than a batch is one."""
    return min(recipe.data.batch_size, splits.train.count)


def last_batch_size(recipe: Recipe, splits: Splits) -> int:
    """Images a training step at the end of the last stage."""
    return legs(recipe.stages[-1], recipe.data.batch_size, splits.train.count)[-1].batch_size


def steps_per_epoch(recipe: Recipe, splits: Splits) -> int:
    """Whole batches; what is left of the training split is dropped."""
    return splits.train.count // batch_size(recipe, splits)


def batches_of(running: Running, split: str) -> tf.data.Dataset:
    return evaluation_batches(getattr(running.splits, split), EVALUATION_BATCH)


def log_epoch(
    running: Running,
    pretrained: Sequence[Reading],
    stage: int,
    epoch: int,
    metrics: Mapping[str, float],
) -> None:
    """One epoch to the run folder and to MLflow, with how far the running statistics have moved."""
    moved = mean_shift(shifts_since(pretrained, running.trainee.sites))
    record = EpochRecord(stage + 1, epoch, len(running.epochs) + 1, {**metrics, **moved})
    running.epochs.append(record)
    if running.replicas.chief:
        append_metrics(running.folder, as_line(record))
    running.tracking.log_epoch(record.step, record.metrics)


def as_line(record: EpochRecord) -> dict[str, float]:
    """As it stands in metrics.jsonl."""
    return {"stage": record.stage, "epoch": record.epoch, "step": record.step, **record.metrics}


def validation_loss(running: Running) -> Callable[[], float]:
    batches = batches_of(running, "validation")
    return lambda: evaluate(running.replicas, running.trainee.model, batches)["loss"]
