"""A SavedModel that Keras 2 (tf_keras, TensorFlow up to 2.15) wrote with its metadata, as a model of Keras 3.

The layers are built from the configuration in keras_metadata.pb by Keras' own reader of such configurations, which is
the one behind .h5 files, so the variables are handed to it as one. That the graph is what the configuration says is not
believed: the new model has to compute what the old signature does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from finetune.backbones.keras2_config import readable
from finetune.errors import WeightsError
from finetune.wire import DamagedError, fields

if TYPE_CHECKING:
    import keras

METADATA = "keras_metadata.pb"
PATH, JSON = 3, 5
"""Fields of a SavedObject in it (tensorflow/python/keras/protobuf/saved_metadata.proto)."""

TOP_LEVEL = re.compile(r"root\.layer(_with_weights)?-\d+")
TOLERANCE = 1e-3
"""Largest difference of the outputs, as a share of the largest of them."""

SHAPE = re.compile(rb'"batch_input_shape": \{"class_name": "__tuple__", "items": \[null, (\d+|null)')


def side_in_metadata(folder: Path) -> int | None:
    """Side in px of the images that the model takes, read without Keras; None where it takes any.

    Raises WeightsError where the folder is no SavedModel with metadata of Keras.
    """
    found = SHAPE.search(_metadata(folder))
    return int(found[1]) if found and found[1] != b"null" else None


def read_keras2(folder: Path) -> keras.Model:
    """The model. Raises WeightsError where it has layers that Keras 3 lacks, or computes something else."""
    import h5py
    import keras
    import tensorflow as tf

    described = _described(folder)
    config = readable(_config(described, folder), folder)
    try:
        loaded = tf.saved_model.load(str(folder))
        with TemporaryDirectory() as scratch:
            path = Path(scratch) / "model.h5"
            with h5py.File(path, "w") as file:
                file.attrs["model_config"] = json.dumps(config)
                _write_weights(file.create_group("model_weights"), loaded, config, described)
            model = keras.models.load_model(path, compile=False, safe_mode=True)
    # the folder may be damaged in any of its parts, and each reader raises its own kind
    except Exception as error:
        reason = _reason(error)
        raise WeightsError(
            f"{folder}: Keras 3 cannot build this model of Keras 2: {reason}; save it as .keras where its code is"
        ) from error
    _check_same(model, loaded, folder)
    return model


def _reason(error: Exception) -> str:
    """Its first line, or what Keras says at the end of a long one that begins with the whole configuration."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return next((line for line in lines if line.startswith("Exception encountered")), lines[0])[:300]


def _metadata(folder: Path) -> bytes:
    try:
        return (folder / METADATA).read_bytes()
    except OSError as error:
        raise WeightsError(
            f"{folder}: no SavedModel with Keras metadata ({METADATA}), so its layers are not known; save the model "
            "as .keras where its code is (model.save('name.keras'))"
        ) from error


def _described(folder: Path) -> dict[str, dict[str, Any]]:
    """What Keras says of each of its objects, by its path from `root`: class, name, configuration."""
    data = _metadata(folder)
    try:
        nodes = [list(fields(data, node.start, node.end)) for node in fields(data, 0, len(data))]
        texts = [
            {
                field.number: data[field.start : field.end].decode()
                for field in node
                if field.number in (PATH, JSON)
            }
            for node in nodes
        ]
        return {text[PATH]: json.loads(text[JSON]) for text in texts if JSON in text}
    except (DamagedError, KeyError, ValueError) as error:
        raise WeightsError(f"{folder / METADATA}: damaged; save the model again") from error


def _config(described: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    root = described.get("root", {})
    if "layers" not in (root.get("config") or {}):
        raise WeightsError(
            f"{folder}: holds a {root.get('class_name', 'model')}, whose layers only its Python code knows; save a "
            "functional model of it as .keras where that code is"
        )
    return {"class_name": root["class_name"], "config": root["config"]}


def _write_weights(group: Any, loaded: Any, config: Mapping[str, Any], described: Mapping[str, Any]) -> None:
    """As Keras 2 wrote them into .h5 files: a group a layer, its trainable weights first."""
    import numpy as np

    at = {
        about["name"]: path.removeprefix("root.")
        for path, about in described.items()
        if TOP_LEVEL.fullmatch(path)
    }
    names = [layer["config"]["name"] for layer in config["config"]["layers"]]
    group.attrs["layer_names"] = [name.encode() for name in names]
    group.attrs["keras_version"] = b"2"
    for name in names:
        # inputs have no variables, and that of a Sequential is no object of its own
        layer = getattr(getattr(loaded, at.get(name, ""), None), "keras_api", None)
        weights = [*layer.trainable_variables, *layer.non_trainable_variables] if layer is not None else []
        own = group.create_group(name)
        own.attrs["weight_names"] = [str(index).encode() for index in range(len(weights))]
        for index, weight in enumerate(weights):
            own.create_dataset(str(index), data=np.asarray(weight))


def _check_same(model: keras.Model, loaded: Any, folder: Path) -> None:
    import numpy as np

    shape = [side or 64 for side in model.inputs[0].shape[1:]]
    images = np.random.default_rng(0).uniform(0, 1, (2, *shape)).astype(np.float32)
    signature = loaded.signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]
    expected = np.asarray(next(iter(signature(**{name: images}).values())))
    got = np.asarray(model(images, training=False))
    apart = float(np.abs(got - expected).max()) if got.shape == expected.shape else np.inf
    if not apart <= TOLERANCE * float(np.abs(expected).max()):
        raise WeightsError(
            f"{folder}: built by Keras 3 it computes something else (outputs differ by {apart:.2g}); save it as .keras "
            "where its code is"
        )
