"""Loading a whole Keras model, and what can go wrong with it in words."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from numpy.typing import NDArray

from finetune.errors import ModelError
from finetune.formats.deployed import InputSpec
from finetune.layer_packages import import_layer_packages

OPEN_SIZE = 224
"""Side of the image that finds the sites of a model that takes any size."""

EXPORT_INSTEAD = (
    "where its code is, export it (model.export('folder')), and recalibrate that SavedModel, which needs none, or this "
    "file through it with --twin"
)
REASONS = {
    "lambda": "a Lambda layer, whose code loading would run; --trust runs it, if you know who wrote the file, "
    "and --twin measures through an export of it",
    "could not locate": f"made with code that is not here; {EXPORT_INSTEAD}",
    "unknown layer": f"made with code that is not here; {EXPORT_INSTEAD}",
    "unknown object": f"made with code that is not here; {EXPORT_INSTEAD}",
    "no model config": "weights alone; recalibrate the whole model (model.save('model.keras'))",
}
"""Words of Keras' own errors, in lower case -> what they mean for a person."""
CODE = ("lambda", "could not locate", "unknown layer", "unknown object")
"""Those of REASONS that an exported twin gets around."""


class CodeMissingError(ModelError):
    """A Keras file needs code that is not here, or that nobody trusts; an exported twin of it does without."""


@contextmanager
def in_words(path: Path) -> Iterator[None]:
    """Whatever goes wrong inside the block is a ModelError."""
    try:
        yield
    except ModelError:
        raise
    # what a damaged file runs into is not foreseeable: any of Python's, HDF5's or the backend's errors
    except Exception as error:
        said = str(error)
        known = next((words for words in REASONS if words in said.lower()), None)
        if known in CODE:
            raise CodeMissingError(f"{path}: {REASONS[known]}") from error
        reason = REASONS.get(known or "")
        if reason is None:
            first = next(iter(said.splitlines()), "")
            reason = (
                f"damaged, or this Keras {keras.__version__} cannot read it: {type(error).__name__}: {first}"
            )
        raise ModelError(f"{path}: {reason}") from error


def load(path: Path, *, trust: bool) -> keras.Model:
    """The model, not compiled. trust: run the code of Lambda layers that the file carries."""
    import_layer_packages(path)
    return keras.saving.load_model(path, compile=False, safe_mode=not trust)


def made_by(path: Path) -> str:
    """The format in words, with the version of Keras that wrote it."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            version = json.loads(archive.read("metadata.json")).get("keras_version", "3")
        return f".keras file (Keras {version})"
    with h5py.File(path) as file:
        if "model_config" not in file.attrs:
            raise ModelError(f"{path}: {REASONS['no model config']}")
        version = file.attrs.get("keras_version", "unknown")
    return f"Keras HDF5 file (Keras {version})"


def image_input(model: keras.Model, path: Path) -> InputSpec:
    """The one input of the model. Raises ModelError where there are several, or none is known."""
    given = keras.tree.flatten(getattr(model, "inputs", None) or [])
    if len(given) > 1:
        raise ModelError(
            f"{path}: takes {len(given)} inputs; export it (model.export('folder')) and recalibrate that SavedModel"
        )
    if given:
        return InputSpec(
            given[0].name, tuple(given[0].shape), keras.backend.standardize_dtype(given[0].dtype)
        )
    shape = (model.get_build_config() or {}).get("input_shape")
    if not shape or not all(size is None or isinstance(size, int) for size in shape):
        raise ModelError(
            f"{path}: does not say what it takes; export it (model.export('folder')) and recalibrate that SavedModel"
        )
    return InputSpec("inputs", tuple(shape), model.input_dtype or keras.config.floatx())


def example_of(spec: InputSpec) -> NDArray[Any]:
    """One input of zeros, open sizes filled in."""
    shape = [OPEN_SIZE if size is None else size for size in (spec.shape or ())[1:]]
    return np.zeros((1, *shape), spec.dtype)
