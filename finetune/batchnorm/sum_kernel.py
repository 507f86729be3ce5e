"""A convolution and the site behind it as one function, normalised from two sums: of its outputs, and of their squares.

Two kernels of TensorFlow read a tensor and write such sums (finetune.batchnorm.channel_sums). E[y²] - E[y]² loses
digits where the mean is far from zero, so the convolution gets the running mean as a bias, at no cost, and what is
summed is y about it. Where the batch is far from the running mean, the squares are summed once more, about the mean of
the batch.

    d gamma = sum dz (y - mean) / sqrt(variance + epsilon), and the gradient of y is
    s dy' with dy' = dz - (sum dz + (y - mean) d gamma / sqrt(variance + epsilon)) / n, s = gamma / sqrt(variance +
    epsilon).

The gradients of the convolution are linear in that of y, so that s is multiplied into the kernel where it is the
smaller of the two. A bias of the convolution is taken off again by the mean: its gradient is 0.
"""

from __future__ import annotations

from typing import Any

from finetune.batchnorm.channel_sums import fold_of, sum_of_products, sum_of_values
from finetune.batchnorm.producer import Convolution, with_bias

FAR = 1.0
"""Squared distance of the means, in variances, from which on the squares are summed again: up to there the sum of
squares, and with it its rounding, is at most twice what it is about the mean itself."""


def normalise_about(
    behind: Convolution, about: Any, gamma: Any, beta: Any, epsilon: float
) -> tuple[Any, Any, Any]:
    """What `kernel.normalise_with_batch` says of the outputs of this convolution. about: where their mean is expected,
    (channels,); it changes what the result costs and how exact it is, and nothing else. gamma, beta: (channels,)."""
    import tensorflow as tf

    about = tf.stop_gradient(tf.convert_to_tensor(about, tf.float32))
    bias = -about if behind.bias is None else behind.bias - about
    outputs, mean, variance = _differentiable(behind, float(epsilon))(
        behind.x, behind.kernel, bias, gamma, beta
    )
    return outputs, tf.stop_gradient(mean) + about, tf.stop_gradient(variance)


def _differentiable(behind: Convolution, epsilon: float) -> Any:
    import tensorflow as tf

    @tf.custom_gradient
    def normalised(x: Any, kernel: Any, bias: Any, gamma: Any, beta: Any) -> Any:
        y = tf.nn.bias_add(behind.applied(x, kernel), bias)
        fold = fold_of(y.shape)
        positions = tf.cast(tf.size(y) // y.shape[-1], tf.float32)
        mean = sum_of_values(y, fold) / positions
        short = sum_of_products(y, y, fold) / positions - tf.square(mean)
        far = tf.reduce_any(tf.square(mean) > FAR * short)
        variance = tf.cond(far, lambda: sum_of_products(y - mean, y - mean, fold) / positions, lambda: short)
        inverse = tf.math.rsqrt(variance + epsilon)
        scale = gamma * inverse

        def gradients(upstream: Any, *_of_moments: Any) -> Any:
            of_beta = sum_of_values(upstream, fold)
            products = tf.cond(
                far,
                lambda: sum_of_products(y - mean, upstream, fold),
                lambda: sum_of_products(y, upstream, fold) - mean * of_beta,
            )
            of_gamma = inverse * products
            by_y = -inverse * of_gamma / positions
            rest = -of_beta / positions - by_y * mean
            of_x, of_kernel = _backwards(
                behind, x, kernel, scale, upstream, lambda s: scaled_channels(y, s * by_y, s * rest)
            )
            return of_x, of_kernel, tf.zeros_like(bias), of_gamma, of_beta

        return (scaled_channels(y, scale, beta - mean * scale), mean, variance), gradients

    return normalised


def _backwards(
    behind: Convolution, x: Any, kernel: Any, scale: Any, upstream: Any, through_moments: Any
) -> tuple[Any, Any]:
    """Gradients by x and by the kernel, where that by y is scale * (upstream + through_moments(1))."""
    if behind.outweighs_kernel:
        of_y = upstream + through_moments(1.0)
        of_x = behind.gradient_by_x(x, behind.across(scale, kernel), of_y)
        return of_x, behind.across(scale, behind.gradient_by_kernel(x, of_y))
    of_y = scale * upstream + through_moments(scale)
    return behind.gradient_by_x(x, kernel, of_y), behind.gradient_by_kernel(x, of_y)


def scaled_channels(y: Any, scale: Any, offset: Any) -> Any:
    """y * scale + offset in one kernel: a depthwise convolution of one position. y: (batch, height, width, channels)"""
    import tensorflow as tf

    by_channel = tf.reshape(scale, [1, 1, -1, 1])
    return with_bias(tf.nn.depthwise_conv2d(y, by_channel, [1, 1, 1, 1], "VALID"), offset)
