"""From raw images to the examples of a split: first the camera, then the size, then memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import tensorflow as tf

from finetune.datasets.camera import Shift
from finetune.datasets.resize import to_square_uint8

KEPT_IN_MEMORY = 2 * 10**9  # bytes of one split


def fits_in_memory(count: int, image_size: int) -> bool:
    """Whether `count` images uint8 (image_size, image_size, 3) may stay in memory."""
    return count * image_size * image_size * 3 <= KEPT_IN_MEMORY


def make_examples(raw: tf.data.Dataset, shift: Shift | None, image_size: int, count: int) -> tf.data.Dataset:
    """(image uint8 (height, width, 1 or 3), id string (), label ()) -> (image uint8 (size, size, 3), label int32).

    The order stays. A split that fits stays in memory after it has been read to its end once.
    """
    examples = raw.map(_example(shift, image_size), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return examples.cache() if fits_in_memory(count, image_size) else examples


@cache
def _example(shift: Shift | None, size: int) -> Callable[..., Any]:
    """Traced once a process for images of one kind, and not for every split of every load. Never forgotten: a dataset
    that was made of it holds the camera by a name only."""

    def example(image: tf.Tensor, image_id: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        seen = image if shift is None else see_through(shift, image, image_id)
        square = to_square_uint8(seen[None], size)[0]
        return tf.ensure_shape(square, (size, size, 3)), tf.cast(label, tf.int32)

    return tf.function(example, autograph=False)


def see_through(shift: Shift, image: tf.Tensor, image_id: tf.Tensor) -> tf.Tensor:
    def change(image: np.ndarray, image_id: bytes) -> np.ndarray:
        return shift.apply(image[None], [image_id.decode()])[0]

    return tf.ensure_shape(tf.numpy_function(change, [image, image_id], tf.uint8), image.shape)


def digest_of(**decisions: Any) -> str:
    """A hash of plain values, 32 characters: MLflow takes at most 36."""
    return hashlib.sha256(json.dumps(decisions, sort_keys=True).encode()).hexdigest()[:32]
