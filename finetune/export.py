"""A finished model as files that need no code of ours: `model.keras` and a SavedModel that takes raw images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from finetune.batchnorm.moments_file import REFERENCE, SavedMoments, save
from finetune.datasets.resize import to_square_uint8
from finetune.errors import FinetuneError
from finetune.full_disk import full_disk_as_os_error
from finetune.keras_backend import on_tensorflow
from finetune.whole_file import write_whole

EXPORTED = (REFERENCE, "provenance.json")
"""What travels with a model wherever it goes: a later recalibration needs it."""

PARITY_TOLERANCE = 1e-3
"""In probability, between the model in memory and the exported one (3e-2 in half precision)."""


def export(
    model: keras.Model,
    folder: Path,
    image_size: int,
    reference: SavedMoments,
    provenance: Mapping[str, Any],
    examples: np.ndarray,
) -> None:
    """Write model.keras, saved_model/1, reference_statistics.npz and provenance.json into `folder`.

    examples: raw uint8 images, (n, h, w, 3), on which the SavedModel must agree with the model. Under another backend
    than TensorFlow there is none (`left_out` says so).
    Each file is written beside its place and renamed. Raises FinetuneError where the exported model
    answers differently.
    """
    model.save(folder / "model.part.keras")
    (folder / "model.part.keras").rename(folder / "model.keras")
    save(folder / "reference.part.npz", reference)
    (folder / "reference.part.npz").rename(folder / REFERENCE)
    write_whole(folder / "provenance.json", json.dumps(provenance, indent=2) + "\n")
    # an earlier sitting of the run may have been broken off here
    shutil.rmtree(folder / "saved_model", ignore_errors=True)
    if not on_tensorflow():
        return
    part = folder / "saved_model" / "1.part"
    _save_serving(model, part, image_size)
    _carry(folder, part / "assets.extra")
    _check_parity(model, part, image_size, examples)
    part.rename(folder / "saved_model" / "1")


def left_out(folder: Path) -> tuple[str, ...]:
    """What `export` does not write into a folder under this Keras backend, in words."""
    if on_tensorflow():
        return ()
    return (
        f"no saved_model: Keras computes on {keras.backend.backend()}, whose code hides the BN sites from later "
        f"recalibration; KERAS_BACKEND=tensorflow finetune export {folder} --savedmodel DIR makes one of model.keras",
    )


def _save_serving(model: keras.Model, folder: Path, image_size: int) -> None:
    def serve(images: tf.Tensor) -> tf.Tensor:
        return model(tf.cast(to_square_uint8(images, image_size), tf.float32), training=False)

    archive = keras.export.ExportArchive()
    archive.track(model)
    signature = tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")
    archive.add_endpoint("serve", serve, input_signature=[signature])
    with full_disk_as_os_error(folder):
        archive.write_out(str(folder), verbose=False)


def _carry(folder: Path, extra: Path) -> None:
    """Into the SavedModel; TensorFlow leaves assets.extra alone."""
    extra.mkdir()
    for name in EXPORTED:
        shutil.copyfile(folder / name, extra / name)


def _check_parity(model: keras.Model, saved: Path, image_size: int, examples: np.ndarray) -> None:
    # the name holds the loaded object: its functions do not keep its variables alive
    loaded = tf.saved_model.load(str(saved))
    exported = loaded.serve(tf.constant(examples))
    live = model(tf.cast(to_square_uint8(tf.constant(examples), image_size), tf.float32), training=False)
    apart = float(np.max(np.abs(np.asarray(exported, np.float64) - np.asarray(live, np.float64))))
    tolerance = PARITY_TOLERANCE if model.dtype_policy.compute_dtype == "float32" else 30 * PARITY_TOLERANCE
    if not apart <= tolerance:
        raise FinetuneError(
            f"{saved}: the exported SavedModel differs from the model in memory by {apart:.1e} in probability "
            f"(at most {tolerance:g}); do not deploy it, and please report it with the recipe"
        )
