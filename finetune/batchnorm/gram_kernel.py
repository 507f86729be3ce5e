"""A site behind a 1 x 1 convolution that makes many channels of few, normalised before its input exists.

The inputs of such a site are y = x W, position by position, so that their moments follow from those of x: with m and
S the mean and the biased covariance of x over all positions, those of y are the mean m W and the variances diag(W' S
W). x has a quarter of the channels or a sixth, and its covariance costs that share of the convolution's
multiplications. Once the variances are known, convolution and site are one convolution, (x - m) W s + beta with s =
gamma / sqrt(variance + epsilon), whose outputs are written once; Keras writes y, reads it twice for its moments and
three times to normalise it.

The gradients are those of the definition, moments included, with sums over positions of y replaced in the same way:
with K = (x - m)' dz of n positions, d beta = sum dz, d gamma = diag(W' K) / sqrt(variance + epsilon) and
a = -s d gamma / (n sqrt(variance + epsilon)) they are d W = K s + n S W a and
d x = dz s W' + (x - m) W a W' - (s d beta / n) W'.
"""

from __future__ import annotations

from typing import Any

from finetune.batchnorm.producer import Convolution

WIDER, POSITIONS = 3, 0.25
"""Taken where the convolution makes at least so many times the channels it reads, from images with at least so many
times as many positions as it reads channels: elsewhere the products of the channels cost more than is saved."""

CANCELS = 64.0
"""Where outputs vary less than this many times less than their summands do, float32 loses too much; their variance is
measured on y itself then."""


def worth_it(behind: Convolution) -> bool:
    """Whether `normalise_pointwise` takes this convolution, and is faster than the fused kernel."""
    if not behind.pointwise or behind.x.shape.rank != 4:
        return False
    _, height, width, channels = behind.x.shape
    if height is None or width is None:
        return False
    return bool(behind.kernel.shape[-1] >= WIDER * channels and height * width >= POSITIONS * channels)


def normalise_pointwise(behind: Convolution, gamma: Any, beta: Any, epsilon: float) -> tuple[Any, Any, Any]:
    """What `kernel.normalise_with_batch` says of the outputs of this convolution."""
    import tensorflow as tf

    read, made = behind.kernel.shape[2:]
    gamma = tf.ones([made]) if gamma is None else tf.convert_to_tensor(gamma, tf.float32)
    beta = tf.zeros([made]) if beta is None else tf.convert_to_tensor(beta, tf.float32)
    bias = tf.zeros([made]) if behind.bias is None else behind.bias
    kernel = tf.reshape(behind.kernel, [read, made])
    outputs, mean, variance = _differentiable(float(epsilon))(behind.x, kernel, bias, gamma, beta)
    return outputs, tf.stop_gradient(mean), tf.stop_gradient(variance)


def _differentiable(epsilon: float) -> Any:
    import tensorflow as tf

    @tf.custom_gradient
    def normalised(x: Any, kernel: Any, bias: Any, gamma: Any, beta: Any) -> Any:
        positions = tf.cast(tf.size(x) // x.shape[-1], tf.float32)
        mean = tf.raw_ops.BiasAddGrad(out_backprop=x) / positions
        centred = x - mean
        rows = tf.reshape(centred, [-1, x.shape[-1]])
        covariance = tf.matmul(rows, rows, transpose_a=True) / positions
        variance = _variance(rows, kernel, covariance)
        inverse = tf.math.rsqrt(variance + epsilon)
        scale = gamma * inverse
        outputs = tf.nn.bias_add(tf.nn.conv2d(centred, (kernel * scale)[None, None], 1, "VALID"), beta)
        of_y = tf.linalg.matvec(kernel, mean, transpose_a=True) + bias

        def gradients(of_outputs: Any, *_of_moments: Any) -> Any:
            upstream = tf.reshape(of_outputs, [-1, kernel.shape[-1]])
            of_beta = tf.raw_ops.BiasAddGrad(out_backprop=of_outputs)
            products = tf.matmul(rows, upstream, transpose_a=True)
            of_gamma = inverse * tf.reduce_sum(kernel * products, 0)
            weighted = kernel * (-scale * inverse * of_gamma / positions)
            of_kernel = scale * products + positions * tf.matmul(covariance, weighted)
            of_rows = (
                tf.matmul(upstream, kernel * scale, transpose_b=True)
                + tf.matmul(rows, tf.matmul(weighted, kernel, transpose_b=True))
                - tf.linalg.matvec(kernel, scale * of_beta / positions)
            )
            return tf.reshape(of_rows, tf.shape(x)), of_kernel, tf.zeros_like(bias), of_gamma, of_beta

        return (outputs, of_y, variance), gradients

    return normalised


def _variance(rows: Any, kernel: Any, covariance: Any) -> Any:
    """diag(W' S W); of y itself where that is a small difference of large numbers. rows: x - m, (positions, read)."""
    import tensorflow as tf

    short = tf.reduce_sum(kernel * tf.matmul(covariance, kernel), 0)
    summands = tf.linalg.matvec(tf.square(kernel), tf.linalg.diag_part(covariance), transpose_a=True)

    def long() -> Any:
        return tf.reduce_mean(tf.square(tf.matmul(rows, kernel)), 0)

    return tf.cond(tf.reduce_any(summands > CANCELS * short), long, lambda: short)
