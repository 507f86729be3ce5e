"""The story of a run, top to bottom; the only file that knows all of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from finetune import checkpoint
from finetune.batchnorm import proof
from finetune.batchnorm.layerwise import of_all_workers
from finetune.batchnorm.moments_file import SavedMoments
from finetune.batchnorm.population import input_moments
from finetune.datasets.batches import images_only
from finetune.describe import site_records
from finetune.distribution.agreement import fingerprint, refuse_unlike
from finetune.distribution.lost import again, loss_in_words
from finetune.distribution.replicas import open_replicas
from finetune.errors import ProofError
from finetune.evaluate import evaluate
from finetune.export import EXPORTED, export, left_out
from finetune.masking import masked
from finetune.pace import Pace
from finetune.policies.base import unheard
from finetune.prepared import Prepared, computing_in, prepare, settled
from finetune.progress import Progress
from finetune.provenance import describe_splits, provenance, requirements
from finetune.recipe import Recipe, resolved
from finetune.recipe_file.yaml_text import write
from finetune.report import write_card, write_report
from finetune.result import Check, RunResult
from finetune.result_file import write_result
from finetune.run_folder import clear_output_errors, new_run_folder, rewrite_metrics
from finetune.run_outcome import outcome_kept
from finetune.run_state import RunState, held
from finetune.stopwatch import Stopwatch
from finetune.tracking import Tracker, log_result, open_run, store_uri
from finetune.training import (
    Running,
    Trained,
    batches_of,
    last_batch_size,
    shared,
    train,
)
from finetune.whole_file import write_whole

REFERENCE_IMAGES = 2048
"""Training images, at most, that the reference statistics are measured on."""

CARD = "model_card.md"


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
    replicas = open_replicas(recipe.distribute, hear=progress.phase)
    progress = progress if replicas.chief else Progress()
    with computing_in(recipe.precision), replicas.scope(), loss_in_words(replicas, "start all workers again"):
        prepared = prepare(recipe, progress, watch, replicas)
        refuse_unlike(replicas, settled(prepared))
        folder = Path(
            replicas.told(str(new_run_folder(runs_folder, recipe.name)) if replicas.chief else "")[0]
        )
        with held(folder) if replicas.chief else nullcontext():
            state = RunState(prepared.splits.digest, key=uuid4().hex)
            return carry_out(prepared, folder, state, store, progress, watch)


def carry_out(
    prepared: Prepared, folder: Path, state: RunState, store: str | None, progress: Progress, watch: Stopwatch
) -> RunResult:
    """From here on there is a folder, and what happens is kept in it."""
    recipe, splits = prepared.recipe, prepared.splits
    if not prepared.replicas.chief:
        return accompany(prepared, folder, watch)
    progress.phase(f"opening {folder}" + (f" and MLflow at {masked(store)}" if store else ""))
    with clear_output_errors(folder), outcome_kept(folder, state, progress) as state_is:
        write_recipe(recipe, folder)
        # before MLflow is asked for a run: whoever is killed in between finds it again by the key
        state_is(state)
        with open_tracking(recipe, folder, store, progress, state) as tracking:
            state_is(replace(state, mlflow_run=tracking.run_id))
            found = checkpoint.latest(folder)
            if found is None:
                # of an epoch that an earlier sitting logged, and was killed before it was kept
                rewrite_metrics(folder, [])
            running = Running(
                recipe,
                splits,
                prepared.built,
                prepared.trainee,
                folder,
                tracking,
                progress,
                watch,
                pace=Pace(recipe.checkpoint.minutes * 60),
                checkpoint=found,
                replicas=prepared.replicas,
            )
            for words in (*splits.notes, *prepared.warnings, *left_out(folder)):
                running.note(words)
            with loss_in_words(prepared.replicas, again(folder)):
                result = fine_tune(running)
            if store and tracking.store is None:
                progress.note(f"what MLflow missed can be sent later: finetune sync {folder}")
            return result


def accompany(prepared: Prepared, folder: Path, watch: Stopwatch) -> RunResult:
    """The part of a worker that is not the chief: the same computations, and nothing is written."""
    running = Running(
        prepared.recipe,
        prepared.splits,
        prepared.built,
        prepared.trainee,
        folder,
        Tracker(None, unheard),
        Progress(),
        watch,
        checkpoint=checkpoint.latest(folder),
        replicas=prepared.replicas,
    )
    with loss_in_words(prepared.replicas, again(folder)):
        return fine_tune(running)


def fine_tune(running: Running) -> RunResult:
    """Train, prove, evaluate, and publish what was proven."""
    found = running.checkpoint
    refuse_unlike(
        running.replicas, {"checkpoint": fingerprint([*found.model, *found.optimizer]) if found else ""}
    )
    log_datasets(running)
    trained = train(running)
    running.progress.phase("proving the policy, evaluating, measuring the reference statistics")
    with running.watch.phase("evaluation"):
        checks = prove(running, trained)
        reference = measure_reference(running)
        test = evaluate(running.trainee.model, batches_of(running, "test"), len(running.splits.class_names))
    recipe = shown(running.recipe)
    origins = provenance(
        recipe, running.built.origin, running.splits, trained.timeline.start, trained.finish, reference.images
    )
    result = RunResult(
        name=running.folder.name,
        folder=running.folder,
        recipe=recipe,
        policy=running.recipe.policy.policy,
        class_names=running.splits.class_names,
        dataset=describe_splits(running.splits),
        epochs=tuple(running.epochs),
        sites=site_records(
            trained.timeline.pretrained,
            running.trainee.sites,
            trained.momentum,
            last_batch_size(running.recipe, running.splits),
        ),
        test=test,
        checks=checks,
        notes=tuple(running.notes),
        seconds=running.watch.seconds,
        provenance=origins,
    )
    publish(running, result, reference)
    return result


def open_tracking(
    recipe: Recipe, folder: Path, store: str | None, progress: Progress, state: RunState
) -> AbstractContextManager[Tracker]:
    """The MLflow run of the state, or a new one where the store knows none."""
    tags = {"bn.policy": recipe.policy.policy, "run_folder": folder.name}
    # rules are a list in the recipe; their name is a param like that of any other policy
    params = resolved(recipe) | {"batchnorm": recipe.policy.model_dump(mode="json")}
    return open_run(
        store,
        recipe.tracking.experiment,
        folder.name,
        params,
        tags,
        progress.note,
        state.mlflow_run,
        key=state.key,
        system_metrics=recipe.tracking.system_metrics,
    )


def shown(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe as it is written to files: without the password of the tracking store."""
    plain = resolved(recipe)
    if recipe.tracking.uri:
        plain["tracking"]["uri"] = masked(recipe.tracking.uri)
    return plain


def write_recipe(recipe: Recipe, folder: Path) -> None:
    write_whole(folder / "recipe.yaml", write(shown(recipe)))


def log_datasets(running: Running) -> None:
    splits = running.splits
    for split in (splits.train, splits.validation, splits.test, splits.calibration):
        running.tracking.log_dataset(
            split.description, split.description, splits.digest, split.count, split.name
        )


def prove(
    running: Running, trained: Trained, predict: Callable[[Any], Any] | None = None
) -> tuple[Check, ...]:
    """What the policy promised, on the model as it will be exported. predict: as in `proof.check`."""
    images = next(iter(images_only(running.splits.validation, 16)))
    sites = running.trainee.sites
    promises = running.recipe.policy.promises(sites)
    return proof.check(promises, trained.timeline, sites, running.trainee.model, images, predict)


def measure_reference(running: Running) -> SavedMoments:
    """Population moments of every site's input on training images under the final weights."""
    sites = [site for site in running.trainee.sites if site.calls]
    training = shared(running, running.splits.train)
    own, images = input_moments(running.trainee.model, sites, training(REFERENCE_IMAGES))
    moments = training.combine(REFERENCE_IMAGES)(own)
    named = {site.path: m for site, m in zip(sites, moments, strict=True)}
    return SavedMoments(named, of_all_workers(images, own, moments))


def publish(running: Running, result: RunResult, reference: SavedMoments) -> None:
    """The report always; the model, in the folder and in MLflow, only where the policy held."""
    running.progress.phase("writing the report, the model and MLflow")
    if running.replicas.chief:
        if result.verified:
            with running.watch.phase("export"):
                publish_model(running, result, reference)
        write_report(result, running.folder / "report.html")
        write_result(result, running.folder)
        log_result(running.tracking, result)
    if not result.verified:
        broken = "; ".join(f"{check.name}: {check.detail}" for check in result.checks if not check.passed)
        raise ProofError(
            f"policy {result.policy} did not hold: {broken}; no model was written; "
            f"the evidence is in {running.folder / 'report.html'}"
        )
    # nobody leaves before the chief is done: a worker that ends is one that was lost
    running.replicas.told("")


def publish_model(running: Running, result: RunResult, reference: SavedMoments) -> None:
    model, folder, tracking = running.trainee.model, running.folder, running.recipe.tracking
    images = np.asarray(next(iter(images_only(running.splits.test, 8))))
    export(model, folder, running.splits.image_size, reference, result.provenance, images)
    write_card(result, folder / CARD)
    if not tracking.log_model:
        return
    probabilities = np.asarray(model(images, training=False))
    beside = [folder / name for name in (*EXPORTED, CARD)]
    uri = running.tracking.log_model(
        folder / "model.keras", images, probabilities, requirements(folder / "model.keras"), beside=beside
    )
    if uri and tracking.register_as:
        version = running.tracking.register(uri, tracking.register_as)
        running.progress.note(f"registered as {tracking.register_as} version {version}")
