"""What every site gets and hands on, as histograms in a TensorBoard log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from finetune.batchnorm.eager import functions_run_eagerly
from finetune.batchnorm.sites import BNSite, SiteCall, replaced_calls
from finetune.errors import InputError, OutputError


def write_histograms(model: keras.Model, sites: Sequence[BNSite], images: NDArray, folder: Path) -> None:
    """`PATH/before` and `PATH/after` BN of each called site, all channels together, in inference mode.

    images: one batch, as the model reads them. Raises OutputError where the folder cannot be
    written, InputError where TensorBoard is not installed.
    """
    try:
        import tensorboard  # noqa: F401  TensorFlow writes histograms through it and does not install it
    except ImportError as error:
        raise InputError(
            "--tensorboard: needs the package tensorboard; pip install 'finetune[tensorboard]'"
        ) from error
    import tensorflow as tf

    seen = passed_through(model, [site for site in sites if site.calls], images)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--tensorboard {folder}: cannot be written: {error.strerror or error}") from error
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default(step=0):
        for path, (before, after) in seen.items():
            tf.summary.histogram(f"{path}/before", before)
            tf.summary.histogram(f"{path}/after", after)
    writer.close()


def passed_through(
    model: keras.Model, sites: Sequence[BNSite], images: NDArray
) -> dict[str, tuple[NDArray, NDArray]]:
    """By site path, all values that went in and all that came out, flat; of all calls of a shared site."""
    seen: dict[int, list[tuple[NDArray, NDArray]]] = {id(site.layer): [] for site in sites}

    def noting(layer: Any, original: SiteCall) -> SiteCall:
        def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
            outputs = original(inputs, training=training, mask=mask)
            seen[id(layer)].append((_flat(inputs), _flat(outputs)))
            return outputs

        return call

    with replaced_calls([site.layer for site in sites], noting), functions_run_eagerly():
        model(images, training=False)
    return {
        site.path: tuple(np.concatenate(each) for each in zip(*seen[id(site.layer)], strict=True))  # type: ignore[misc]
        for site in sites
    }


def _flat(values: Any) -> NDArray:
    return np.asarray(keras.ops.convert_to_numpy(values), np.float32).ravel()
