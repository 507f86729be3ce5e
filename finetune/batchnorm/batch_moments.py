"""Count, mean and biased variance behind each channel of one batch at one site."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from finetune.batchnorm.kernel import fusible, normalise_with_batch

Moments = tuple[Any, Any, Any]
"""count, mean and biased variance of one batch at one site, as tensors."""


def batch_moments(inputs: Any, mask: Any, axis: int, *, precise: bool = False) -> Moments:
    """In at least float32 whatever the precision of the inputs; precise: reduced in float64.

    mask: None, or true where a position counts, (batch, ...) without the channel axis, which must be last then.
    """
    if mask is None and not precise and fusible(inputs, axis):
        _, mean, variance = normalise_with_batch(inputs, None, None, epsilon=1.0)
        return ops.size(inputs) // inputs.shape[-1], mean, variance
    dtype = "float64" if precise else keras.backend.result_type(inputs.dtype, "float32")
    inputs = ops.cast(inputs, dtype)
    axis = axis % len(inputs.shape)
    axes = [a for a in range(len(inputs.shape)) if a != axis]
    if mask is None:
        mean = ops.mean(inputs, axis=axes, keepdims=True)
        variance = ops.mean(ops.square(inputs - mean), axis=axes)
        return ops.size(inputs) // inputs.shape[axis], ops.reshape(mean, [-1]), variance
    weights = ops.broadcast_to(ops.expand_dims(ops.cast(mask, dtype), -1), ops.shape(inputs))
    count = ops.sum(weights) / inputs.shape[axis]
    mean = ops.sum(weights * inputs, axis=axes, keepdims=True) / count
    variance = ops.sum(weights * ops.square(inputs - mean), axis=axes) / count
    return count, ops.reshape(mean, [-1]), variance
