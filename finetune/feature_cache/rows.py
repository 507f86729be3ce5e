"""Images through the still part of a model, once: one row an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from finetune.distribution.data_parallel import undivided
from finetune.errors import DataError
from finetune.feature_cache.cut import refuse_other_features_in_training
from finetune.keras_backend import on_tensorflow

Rows = NDArray[np.void]
"""Records of "features", float32 (...), and "label", int32 (), or (classes,) of multi-label images.

float32 also where the network computes in half precision: it holds every value of those, and the head casts it
back to what it was.
"""


def row_of(features: keras.Model, label: Sequence[int] = ()) -> np.dtype[np.void]:
    """What one image takes. label: the shape of a label."""
    shape = tuple(features.output.shape[1:])
    return np.dtype([("features", np.float32, shape), ("label", np.int32, tuple(label))])


def compute_rows(
    features: keras.Model,
    forward: Callable[[Any], Any],
    batches: tf.data.Dataset,
    count: int,
    passes: int = 1,
) -> Iterator[Rows]:
    """Batches of rows in the order of the images, in inference mode.

    forward: `compiled(features)`. batches: (images (batch, size, size, 3), labels (batch, ...)), read `passes` times.
    Raises DataError where a pass gives another number of images than `count`, NotCacheable where training mode gives
    other features.
    """
    row = row_of(features, batches.element_spec[1].shape[1:])
    for one in range(passes):
        seen = 0
        for images, labels in batches:
            if not one and not seen:
                refuse_other_features_in_training(features, np.asarray(images[:2], np.float32))
            rows = np.empty(len(labels), row)
            rows["features"], rows["label"] = forward(images), labels
            seen += len(rows)
            yield rows
        if seen != count:
            raise DataError(f"a split of {count} images gave {seen} while its features were computed")


def compiled(features: keras.Model) -> Callable[[Any], Any]:
    """What computes them. Under TensorFlow traced once for batches of any size, where `predict` would trace anew for
    the last one."""
    if not on_tensorflow():
        return undivided()(lambda batch: features.predict_on_batch(np.asarray(batch, np.float32)))
    images = tf.TensorSpec([None, *features.input.shape[1:]], tf.float32)

    def forward(images: tf.Tensor) -> tf.Tensor:
        return tf.cast(features(images, training=False), tf.float32)

    graph = tf.function(forward, input_signature=[images], autograph=False)
    return lambda batch: graph(tf.cast(batch, tf.float32))
