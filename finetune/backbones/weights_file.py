"""Weights from a file into a network: all of them, or a reason why not."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.errors import WeightsError, first_line

if TYPE_CHECKING:
    import keras
    import numpy as np


def load_weights(model: keras.Model, path: Path, architecture: str) -> str:
    """Fill `model` from a .weights.h5 file, or a legacy .h5 one; returns the file's SHA-256.

    architecture: what the weights should be of, for messages. Raises WeightsError where the file is
    missing, damaged, of another architecture, or does not hold every weight.
    """
    if path.suffix != ".h5" or not path.is_file():
        found = "not an .h5 file" if path.exists() else "no such file"
        raise WeightsError(f"{path}: {found}; expected weights of {architecture} (.weights.h5 or .h5)")
    try:
        with warnings.catch_warnings():
            # Keras warns of parts that it skips and goes on; whether any weight is missing is checked below
            warnings.simplefilter("ignore", UserWarning)
            model.load_weights(path)
    except OSError as error:
        raise WeightsError(
            f"{path}: damaged or not HDF5 ({first_line(error)}); fetch the file again"
        ) from error
    except ValueError as error:
        raise WeightsError(f"{path}: not weights of {architecture}: {first_line(error)}") from error
    _check_all_loaded(model, path, architecture)
    return digest(path)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_all_loaded(model: keras.Model, path: Path, architecture: str) -> None:
    held = _fingerprints(path)
    missing = [weight.path for weight in model.weights if _fingerprint(weight.numpy()) not in held]
    # seeds of random layers are weights to Keras and come with no published file
    missing = [name for name in missing if "seed_generator" not in name]
    if missing:
        raise WeightsError(
            f"{path}: holds no values for {len(missing)} of the {len(model.weights)} weights of {architecture}, "
            f"such as {missing[0]}; expected a file with all of them"
        )


def _fingerprints(path: Path) -> set[bytes]:
    import h5py

    found: set[bytes] = set()

    def visit(_: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found.add(_fingerprint(item[()]))

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def _fingerprint(values: np.ndarray) -> bytes:
    import numpy as np

    return hashlib.sha256(np.ascontiguousarray(values, np.float32).tobytes()).digest()
