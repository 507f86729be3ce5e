"""A site behind a 1 x 1 convolution that makes many channels of few, normalised before its input exists.

The inputs of such a site are y = x W, position by position, so that their moments follow from those of x: with m and
S the mean and the biased covariance of x over all positions, those of y are the mean m W and the variances
diag(W' S W). x has a quarter of the channels or a sixth, and its covariance costs that share of the convolution's
multiplications. Once the variances are known, convolution and site are one convolution, (x - m) W s + beta with s =
gamma / sqrt(variance + epsilon), whose outputs are written once; Keras writes y, reads it twice for its moments and
three times to normalise it.

`normalise_pointwise` is for measuring only: TensorFlow makes one kernel of a convolution, its offset and a ReLU behind
it, and that kernel turns NaN into 0 (tests/test_tensorflow_behaviour.py), so that a training would not see its loss
leave the numbers. What trains is in finetune.batchnorm.gram_gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finetune.batchnorm.channel_sums import fold_of, sum_of_values

WIDER, POSITIONS = 3, 0.25
"""Taken where the convolution makes at least so many times the channels it reads, from images with at least so many
times as many positions as it reads channels: elsewhere the products of the channels cost more than is saved."""

CANCELS = 64.0
"""Where outputs vary more than so many times less than their summands would by themselves, float32 loses too much, and
their moments must be measured on y itself."""


def worth_it(pointwise: bool, x_shape: Sequence[int | None], kernel_shape: Sequence[int | None]) -> bool:
    """Whether a convolution can be taken, and that is faster than sums of its outputs. pointwise: one position of x
    makes one of them."""
    if not pointwise:
        return False
    _, height, width, channels = x_shape
    if height is None or width is None or channels is None:
        return False
    made = kernel_shape[-1]
    return made is not None and made >= WIDER * channels and height * width >= POSITIONS * channels


@dataclass(frozen=True, eq=False)
class Read:
    """What a 1 x 1 convolution reads, and what follows of what it makes.

    centred: x about its mean, (batch, height, width, read). count: of positions. mean: (read,). products: the biased
    covariance of x times the kernel, (read, made). variance: of the outputs, (made,). summands: what that would be
    without covariances, of which it may be a small rest (`CANCELS`).
    """

    centred: Any
    count: Any
    mean: Any
    products: Any
    variance: Any
    summands: Any


def read_by(x: Any, matrix: Any) -> Read:
    """x: (batch, height, width, read). matrix: (read, made)."""
    import tensorflow as tf

    read = matrix.shape[0]
    count = tf.size(x) // read
    positions = tf.cast(count, tf.float32)
    mean = sum_of_values(x, fold_of(x.shape)) / positions
    centred = x - mean
    rows = tf.reshape(centred, [-1, read])
    covariance = tf.matmul(rows, rows, transpose_a=True) / positions
    products = tf.matmul(covariance, matrix)
    variance = tf.maximum(tf.reduce_sum(matrix * products, 0), 0.0)
    summands = tf.linalg.matvec(tf.square(matrix), tf.linalg.diag_part(covariance), transpose_a=True)
    return Read(centred, count, mean, products, variance, summands)


def normalise_pointwise(
    x: Any, kernel: Any, bias: Any, gamma: Any, beta: Any, epsilon: float
) -> tuple[Any, tuple[Any, Any, Any], Any]:
    """The site's outputs; count, mean and biased variance of its inputs x * kernel + bias; what the variance would be
    without covariances, of which it may be a small rest (`CANCELS`).

    x: (batch, height, width, read). kernel: (1, 1, read, made). bias: (made,), or None. gamma, beta: (made,). All
    float32, no gradients.
    """
    import tensorflow as tf

    matrix = tf.reshape(kernel, kernel.shape[2:])
    of = read_by(x, matrix)
    scale = gamma * tf.math.rsqrt(of.variance + epsilon)
    outputs = tf.nn.bias_add(tf.nn.conv2d(of.centred, kernel * scale, 1, "VALID"), beta)
    mean = tf.linalg.matvec(matrix, of.mean, transpose_a=True)
    return outputs, (of.count, mean if bias is None else mean + bias, of.variance), of.summands
