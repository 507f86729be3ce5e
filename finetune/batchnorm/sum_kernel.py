"""A site behind any other convolution, normalised from two sums: of its inputs, and of their squares.

Two kernels of TensorFlow read a tensor and write such sums (finetune.batchnorm.channel_sums). E[y²] - E[y]² loses
digits where the mean is far from zero, so the convolution gets the running mean as a bias, at no cost, and what is
summed is y about it. Where the batch is far from the running mean, the squares are summed once more, about the mean of
the batch.

    d gamma = sum dz (y - mean) / sqrt(variance + epsilon), and the gradient of the inputs is
    s dz - s / n (sum dz + (y - mean) d gamma / sqrt(variance + epsilon)), with s = gamma / sqrt(variance + epsilon).
"""

from __future__ import annotations

from typing import Any

from finetune.batchnorm.channel_sums import sum_of_products, sum_of_values
from finetune.batchnorm.producer import Convolution

FAR = 1.0
"""Squared distance of the means, in variances, from which on the squares are summed again: up to there the sum of
squares, and with it its rounding, is at most twice what it is about the mean itself."""


def normalise_about(
    behind: Convolution, about: Any, gamma: Any, beta: Any, epsilon: float
) -> tuple[Any, Any, Any]:
    """What `kernel.normalise_with_batch` says of the outputs of this convolution. about: where their mean is expected,
    (channels,); it changes what the result costs and how exact it is, and nothing else."""
    import tensorflow as tf

    channels = about.shape[0]
    gamma = tf.ones([channels]) if gamma is None else tf.convert_to_tensor(gamma, tf.float32)
    beta = tf.zeros([channels]) if beta is None else tf.convert_to_tensor(beta, tf.float32)
    about = tf.stop_gradient(tf.convert_to_tensor(about, tf.float32))
    outputs, mean, variance = _differentiable(float(epsilon))(behind.moved(-about), gamma, beta)
    return outputs, tf.stop_gradient(mean) + about, tf.stop_gradient(variance)


def _differentiable(epsilon: float) -> Any:
    import tensorflow as tf

    @tf.custom_gradient
    def normalised(y: Any, gamma: Any, beta: Any) -> Any:
        positions = tf.cast(tf.size(y) // y.shape[-1], tf.float32)
        mean = sum_of_values(y) / positions
        short = sum_of_products(y, y) / positions - tf.square(mean)
        far = tf.reduce_any(tf.square(mean) > FAR * short)
        variance = tf.cond(far, lambda: sum_of_products(y - mean, y - mean) / positions, lambda: short)
        inverse = tf.math.rsqrt(variance + epsilon)
        scale = gamma * inverse

        def gradients(upstream: Any, *_of_moments: Any) -> Any:
            of_beta = sum_of_values(upstream)
            products = tf.cond(
                far,
                lambda: sum_of_products(y - mean, upstream),
                lambda: sum_of_products(y, upstream) - mean * of_beta,
            )
            of_gamma = inverse * products
            by_y = -scale * inverse * of_gamma / positions
            rest = -scale * of_beta / positions - by_y * mean
            return scale * upstream + (by_y * y + rest), of_gamma, of_beta

        return (y * scale + (beta - mean * scale), mean, variance), gradients

    return normalised
