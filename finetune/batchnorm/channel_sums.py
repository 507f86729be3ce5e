"""Sums over all positions of each channel, by two kernels of TensorFlow that read a tensor and write a few numbers.

The gradient of a bias is the sum of a channel, and that of a depthwise kernel of one position the sum of a channel's
products. Both add float32 numbers one after another, which loses digits where positions are many; a fold takes some
positions of an image for channels of their own, without a copy, and adds up these few sums at the end
(tests/batchnorm/test_channel_sums.py).
"""

from __future__ import annotations

from typing import Any

WIDEST = 1024
"""Channels that a fold makes at most: with more, sums of products take longer on a CPU."""


def moments_of(y: Any, count: str, mean: str | None, variance: str) -> tuple[Any, Any, Any]:
    """Count, mean and biased variance of every channel of y, (batch, height, width, channels), float32.

    For means that are small beside their standard deviations: E[y^2] - E[y]^2 loses digits elsewhere. The names are
    those of the operations in the graph that is being built.
    """
    import tensorflow as tf

    fold = fold_of(y.shape)
    number = tf.math.floordiv(tf.size(y), y.shape[-1], name=count)
    positions = tf.cast(number, tf.float32)
    first = tf.realdiv(sum_of_values(y, fold), positions, name=mean)
    second = sum_of_products(y, y, fold) / positions
    return number, first, tf.maximum(second - tf.square(first), 0.0, name=variance)


def sum_of_values(y: Any, fold: int = 1) -> Any:
    """(channels,), of y, (batch, height, width, channels). fold: see `fold_of`."""
    import tensorflow as tf

    return _unfolded(tf.raw_ops.BiasAddGrad(out_backprop=_folded(y, fold)), fold)


def sum_of_products(a: Any, b: Any, fold: int = 1) -> Any:
    """(channels,), of a * b, both (batch, height, width, channels)."""
    import tensorflow as tf

    first = _folded(a, fold)
    sums = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
        input=first,
        filter_sizes=[1, 1, first.shape[-1], 1],
        out_backprop=first if b is a else _folded(b, fold),
        strides=[1, 1, 1, 1],
        padding="VALID",
    )
    return _unfolded(tf.reshape(sums, [-1]), fold)


def fold_of(shape: Any) -> int:
    """The positions of an image, (..., height, width, channels), that are best taken for channels; 1 if it is open."""
    height, width, channels = shape[-3:]
    if not (height and width and channels):
        return 1
    positions = height * width
    return max(
        k for k in range(1, positions + 1) if positions % k == 0 and (k == 1 or k * channels <= WIDEST)
    )


def sums_are_faster() -> bool:
    """Than TensorFlow's fused kernel: not on an accelerator, where that is cuDNN's."""
    import tensorflow as tf

    return not tf.config.list_logical_devices("GPU")


def _folded(y: Any, fold: int) -> Any:
    import tensorflow as tf

    if fold == 1:
        return y
    _, height, width, channels = y.shape
    return tf.reshape(y, [-1, height * width // fold, 1, fold * channels])


def _unfolded(sums: Any, fold: int) -> Any:
    import tensorflow as tf

    return sums if fold == 1 else tf.reduce_sum(tf.reshape(sums, [fold, -1]), 0)
