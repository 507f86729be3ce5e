"""Checkpoints: all that the rest of a training depends on, in one file.

The file is written beside its place, brought to the disk and renamed. A zip archive has a check sum for each of its
members, so that a file that was torn all the same is recognised, and the one before it is used.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from finetune.damaged_archive import DAMAGED
from finetune.errors import InputError
from finetune.result import EpochRecord
from finetune.standing import Standing

FOLDER = "checkpoints"
KEPT = 2
"""Files: the newest, and the one before it in case that the newest is damaged."""

Arrays = Sequence[np.ndarray]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A training after a step of its stage number `stage` (from 0), which began at the validation loss `before`.
    model, optimizer: their variables. drawn: orders of the training batches that stages share. epochs, notes, seconds:
    what the run has recorded so far."""

    stage: int
    before: float | None
    standing: Standing
    drawn: int
    model: Arrays
    optimizer: Arrays
    epochs: Sequence[EpochRecord]
    notes: Sequence[str]
    seconds: Mapping[str, float]


def variables_of(model: keras.Model) -> list[keras.Variable]:
    """The weights, and the states of its random number generators."""
    seeds = [variable for variable in model.variables if variable.name == "seed_generator_state"]
    return [*model.weights, *seeds]


def values_of(variables: Sequence[keras.Variable]) -> Arrays:
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def put_back(checkpoint: Checkpoint, model: keras.Model) -> None:
    """Into a model that is compiled for the checkpoint's stage. Raises InputError where they do not fit."""
    assign(variables_of(model), checkpoint.model, "model")
    assign(model.optimizer.variables, checkpoint.optimizer, "optimizer")


def assign(variables: Sequence[keras.Variable], values: Arrays, whose: str) -> None:
    """Raises InputError where they do not fit."""
    if [tuple(variable.shape) for variable in variables] != [value.shape for value in values]:
        raise InputError(
            f"the checkpoint does not fit the {whose} that the recipe makes here: other versions of the packages, "
            "or other weights; go on where it was begun, or start anew"
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def save(run_folder: Path, checkpoint: Checkpoint) -> None:
    """It is on the disk when this returns."""
    folder = run_folder / FOLDER
    folder.mkdir(exist_ok=True)
    standing = checkpoint.standing
    lists = {
        "model": checkpoint.model,
        "optimizer": checkpoint.optimizer,
        "initial": standing.initial,
        "best": [] if _best_is_there(standing) else standing.weights,
        "metrics": standing.metrics,
    }
    plain = {
        "stage": checkpoint.stage,
        "before": checkpoint.before,
        "drawn": checkpoint.drawn,
        "standing": {
            "epochs": standing.epochs,
            "stopped": standing.stopped,
            "best": standing.best,
            "best_epoch": standing.best_epoch,
            "drawn": standing.drawn,
            "step": standing.step,
        },
        "epochs": [asdict(record) for record in checkpoint.epochs],
        "notes": list(checkpoint.notes),
        "seconds": dict(checkpoint.seconds),
        "lengths": {name: len(values) for name, values in lists.items()},
    }
    arrays = {f"{name}/{i}": value for name, values in lists.items() for i, value in enumerate(values)}
    path = folder / f"{len(checkpoint.epochs):06d}-{standing.step:08d}.npz"
    _write(path, plain, arrays)
    files = _files(run_folder)
    place = files.index(path)
    # what lies ahead of it was damaged, or the training would have gone on from there
    for other in files[:place] + files[place + KEPT :]:
        other.unlink()


def _best_is_there(standing: Standing) -> bool:
    """Among other arrays of a checkpoint: the stage began with them, or the model after the last epoch has them."""
    return standing.best_epoch == 0 or (standing.best_epoch == standing.epochs and standing.step == 0)


def _write(path: Path, plain: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        text = np.frombuffer(json.dumps(plain).encode(), np.uint8)
        np.savez(file, allow_pickle=False, state=text, **arrays)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def latest(run_folder: Path) -> Checkpoint | None:
    """The newest that is whole; None where there is none."""
    for path in _files(run_folder):
        try:
            return _read(path)
        except DAMAGED:
            continue
    return None


def clear(run_folder: Path) -> None:
    """A run that is finished needs none."""
    shutil.rmtree(run_folder / FOLDER, ignore_errors=True)


def _files(run_folder: Path) -> list[Path]:
    """Newest first."""
    return sorted((run_folder / FOLDER).glob("*.npz"), reverse=True)


def _read(path: Path) -> Checkpoint:
    with np.load(path, allow_pickle=False) as found:
        plain = json.loads(found["state"].tobytes())
        lists = {
            name: [found[f"{name}/{i}"] for i in range(length)] for name, length in plain["lengths"].items()
        }
    known = plain["standing"]
    best = lists["best"] if known["best_epoch"] else lists["initial"]
    standing = Standing(**known, weights=best, initial=lists["initial"], metrics=lists["metrics"])
    return Checkpoint(
        plain["stage"],
        plain["before"],
        standing,
        plain["drawn"],
        lists["model"],
        lists["optimizer"],
        [EpochRecord(**record) for record in plain["epochs"]],
        plain["notes"],
        plain["seconds"],
    )
