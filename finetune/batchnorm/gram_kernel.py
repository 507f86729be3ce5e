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

from finetune.batchnorm.channel_sums import fold_of, sum_of_values
from finetune.batchnorm.conv_names import ConvNames

WIDER, POSITIONS = 3, 0.25
"""Taken where the convolution makes at least so many times the channels it reads, from images with at least so many
times as many positions as it reads channels: elsewhere the products of the channels cost more than is saved."""

CANCELS = 64.0
"""Where outputs vary more than so many times less than their summands would by themselves, float32 loses too much, and
their moments must be measured on y itself."""


def worth_it(behind: ConvNames) -> bool:
    """Whether `normalise_pointwise` takes this convolution, and is faster than sums of its outputs."""
    if not behind.pointwise:
        return False
    _, height, width, channels = behind.x_shape
    if height is None or width is None or channels is None:
        return False
    made = behind.kernel_shape[-1]
    return made is not None and made >= WIDER * channels and height * width >= POSITIONS * channels


def normalise_pointwise(
    x: Any, kernel: Any, bias: Any, gamma: Any, beta: Any, epsilon: float
) -> tuple[Any, tuple[Any, Any, Any], Any]:
    """The site's outputs; count, mean and biased variance of its inputs x * kernel + bias; what the variance would be
    without covariances, of which it may be a small rest (`CANCELS`).

    x: (batch, height, width, read). kernel: (1, 1, read, made). bias: (made,), or None. gamma, beta: (made,). All
    float32, no gradients.
    """
    import tensorflow as tf

    read, made = kernel.shape[2:]
    products = tf.reshape(kernel, [read, made])
    count = tf.size(x) // read
    positions = tf.cast(count, tf.float32)
    mean = sum_of_values(x, fold_of(x.shape)) / positions
    centred = x - mean
    rows = tf.reshape(centred, [-1, read])
    covariance = tf.matmul(rows, rows, transpose_a=True) / positions
    variance = tf.maximum(tf.reduce_sum(products * tf.matmul(covariance, products), 0), 0.0)
    summands = tf.linalg.matvec(tf.square(products), tf.linalg.diag_part(covariance), transpose_a=True)
    scale = gamma * tf.math.rsqrt(variance + epsilon)
    outputs = tf.nn.bias_add(tf.nn.conv2d(centred, kernel * scale, 1, "VALID"), beta)
    of_y = tf.linalg.matvec(products, mean, transpose_a=True)
    return outputs, (count, of_y if bias is None else of_y + bias, variance), summands
