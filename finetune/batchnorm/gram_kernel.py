"""A site behind a 1 x 1 convolution that makes many channels of few, normalised before its input exists.

The inputs of such a site are y = x W, position by position, so that their moments follow from those of x: with m and
S the mean and the biased covariance of x over all positions, those of y are the mean m W and the variances
diag(W' S W). x has a quarter of the channels or a sixth, and its covariance costs that share of the convolution's
multiplications. Once the variances are known, convolution and site are one convolution, (x - m) W s + beta with s =
gamma / sqrt(variance + epsilon), whose outputs are written once; Keras writes y, reads it twice for its moments and
three times to normalise it.

For measuring only: TensorFlow makes one kernel of a convolution, its offset and a ReLU behind it, and that kernel
turns NaN into 0 (tests/test_tensorflow_behaviour.py), so that a training would not see its loss leave the numbers.
"""

from __future__ import annotations

from typing import Any

from finetune.batchnorm.producer import Convolution

WIDER, POSITIONS = 3, 0.25
"""Taken where the convolution makes at least so many times the channels it reads, from images with at least so many
times as many positions as it reads channels: elsewhere the products of the channels cost more than is saved."""

CANCELS = 64.0
"""Where outputs vary more than so many times less than their summands would by themselves, float32 loses too much, and
their variance is measured on y itself."""


def worth_it(behind: Convolution) -> bool:
    """Whether `normalise_pointwise` takes this convolution, and is faster than the fused kernel."""
    if not behind.pointwise or behind.x.shape.rank != 4:
        return False
    _, height, width, channels = behind.x.shape
    if height is None or width is None:
        return False
    return bool(behind.kernel.shape[-1] >= WIDER * channels and height * width >= POSITIONS * channels)


def normalise_pointwise(behind: Convolution, gamma: Any, beta: Any, epsilon: float) -> tuple[Any, Any, Any]:
    """What `kernel.normalise_with_batch` says of the outputs of this convolution, but for their gradients."""
    import tensorflow as tf

    read, made = behind.kernel.shape[2:]
    kernel = tf.reshape(behind.kernel, [read, made])
    positions = tf.cast(tf.size(behind.x) // read, tf.float32)
    mean = tf.raw_ops.BiasAddGrad(out_backprop=behind.x) / positions
    centred = behind.x - mean
    rows = tf.reshape(centred, [-1, read])
    variance = _variance(rows, kernel, tf.matmul(rows, rows, transpose_a=True) / positions)
    scale = tf.math.rsqrt(variance + epsilon)
    if gamma is not None:
        scale = scale * gamma
    outputs = tf.nn.conv2d(centred, (kernel * scale)[None, None], 1, "VALID")
    of_y = tf.linalg.matvec(kernel, mean, transpose_a=True)
    return (
        outputs if beta is None else tf.nn.bias_add(outputs, tf.cast(beta, tf.float32)),
        of_y if behind.bias is None else of_y + behind.bias,
        variance,
    )


def _variance(rows: Any, kernel: Any, covariance: Any) -> Any:
    """diag(W' S W); of y itself where that is a small difference of large numbers. rows: x - m, (positions, read)."""
    import tensorflow as tf

    short = tf.reduce_sum(kernel * tf.matmul(covariance, kernel), 0)
    summands = tf.linalg.matvec(tf.square(kernel), tf.linalg.diag_part(covariance), transpose_a=True)

    def long() -> Any:
        return tf.reduce_mean(tf.square(tf.matmul(rows, kernel)), 0)

    return tf.cond(tf.reduce_any(summands > CANCELS * short), long, lambda: short)
