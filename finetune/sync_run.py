"""`finetune sync`: what MLflow missed of a finished run, sent later and once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import numpy as np

from finetune.errors import FinetuneError, InputError
from finetune.export import EXPORTED
from finetune.layer_packages import import_layer_packages
from finetune.masking import masked
from finetune.progress import Progress
from finetune.provenance import requirements
from finetune.recipe import Recipe
from finetune.result import RunResult
from finetune.result_file import read_result
from finetune.resumption import recipe_of
from finetune.run import CARD, open_tracking
from finetune.run_state import finished_state, held, write_state
from finetune.tracking import Tracker, log_result, store_uri


def sync(folder: Path, *, tracking_uri: str | None = None, progress: Progress | None = None) -> str:
    """Log whatever the store does not have yet; returns the id of the MLflow run.

    It is the run that was begun when the training was, where the store knows it. Raises InputError where the folder
    holds no finished run, FinetuneError where the store fails again; what it took so far is not sent twice.
    """
    progress = progress or Progress()
    with held(folder):
        state, result, recipe = finished_state(folder), read_result(folder), recipe_of(folder, tracking_uri)
        if not recipe.tracking.enabled and not tracking_uri:
            raise InputError(f"{folder}: its recipe tracks nothing; say where to with --tracking-uri")
        store = store_uri(tracking_uri or recipe.tracking.uri)
        progress.phase(f"sending {folder} to MLflow at {masked(store)}")
        with open_tracking(recipe, folder, store, progress, state) as tracking:
            if tracking.run_id:
                write_state(folder, dataclasses.replace(state, mlflow_run=tracking.run_id))
            send(tracking, result, recipe)
        if tracking.store is None:
            raise FinetuneError(f"{folder}: not all was sent; run it again when the store is there")
    return tracking.run_id


def send(tracking: Tracker, result: RunResult, recipe: Recipe) -> None:
    """Splits, epochs, the model and the result, in the order of a run."""
    data = result.provenance["data"]
    for split, words in result.dataset.items():
        count = data["counts"][split]
        description = words.removesuffix(f" ({count} images)")
        tracking.log_dataset(description, description, data["digest"], count, split)
    for record in result.epochs:
        tracking.log_epoch(record.step, record.metrics)
    if recipe.tracking.log_model:
        send_model(tracking, result, recipe.tracking.register_as)
    log_result(tracking, result)


def send_model(tracking: Tracker, result: RunResult, register_as: str | None) -> None:
    import_layer_packages(result.folder / "model.keras")
    model = keras.saving.load_model(result.folder / "model.keras", compile=False)
    # the data may be gone: a black image has the same signature
    images = np.zeros((1, *model.input_shape[1:]), np.uint8)
    probabilities = np.asarray(model(images.astype(np.float32), training=False))
    beside = [result.folder / name for name in (*EXPORTED, CARD)]
    uri = tracking.log_model(
        result.folder / "model.keras",
        images,
        probabilities,
        requirements(result.folder / "model.keras"),
        beside=beside,
    )
    if uri and register_as:
        tracking.register(uri, register_as)
