"""A 1 x 1 convolution to many channels and the site behind it as one function, while they train: y = x W is never read.

With c = x - m and S the mean and the biased covariance of x (finetune.batchnorm.gram_kernel), the outputs are
z = c W s + beta, s = gamma / sqrt(variance + epsilon). With dz their gradient, n positions, and G = c' dz, which the
gradient of the convolution needs anyway:

    d beta = sum dz
    d gamma = diag(W' G) / sqrt(variance + epsilon), for y - mean = c W
    d W = s G - S W s d gamma / sqrt(variance + epsilon), for the sum of c is 0
    d x = dz (W s)' - c W diag(s d gamma / sqrt(variance + epsilon)) W' / n - W s d beta / n

What is as wide as y is read by the two gradients of the convolution and once for d beta; moments and what flows back
through them cost products of x's few channels with each other. A bias of the convolution is taken off again by the
mean: its gradient is 0.
"""

from __future__ import annotations

from typing import Any

from finetune.batchnorm.channel_sums import fold_of, sum_of_products, sum_of_values
from finetune.batchnorm.gram_kernel import CANCELS, Read, read_by
from finetune.batchnorm.producer import Convolution, with_bias


def normalise_behind_pointwise(
    behind: Convolution, gamma: Any, beta: Any, epsilon: float
) -> tuple[Any, Any, Any]:
    """What `kernel.normalise_with_batch` says of the outputs of this convolution, for which
    `finetune.batchnorm.gram_kernel.worth_it`. gamma, beta: (channels,)."""
    import tensorflow as tf

    bias = tf.zeros_like(beta) if behind.bias is None else behind.bias
    outputs, mean, variance = _differentiable(behind, float(epsilon))(
        behind.x, behind.kernel, bias, gamma, beta
    )
    return outputs, tf.stop_gradient(mean), tf.stop_gradient(variance)


def _differentiable(behind: Convolution, epsilon: float) -> Any:
    import tensorflow as tf

    @tf.custom_gradient
    def normalised(x: Any, kernel: Any, bias: Any, gamma: Any, beta: Any) -> Any:
        matrix = tf.reshape(kernel, kernel.shape[2:])
        of = read_by(x, matrix)
        positions = tf.cast(of.count, tf.float32)
        variance = _variance(behind, of, kernel, epsilon)
        inverse = tf.math.rsqrt(variance + epsilon)
        scale = gamma * inverse

        def gradients(upstream: Any, *_of_moments: Any) -> Any:
            of_beta = sum_of_values(upstream, fold_of(upstream.shape))
            products = tf.reshape(behind.gradient_by_kernel(of.centred, upstream), matrix.shape)
            of_gamma = inverse * tf.reduce_sum(matrix * products, 0)
            by_y = scale * inverse * of_gamma
            of_matrix = products * scale - of.products * by_y
            back = tf.matmul(matrix * (by_y / positions), matrix, transpose_b=True)
            rest = tf.linalg.matvec(matrix, scale * of_beta / positions)
            through_moments = tf.nn.bias_add(tf.nn.conv2d(of.centred, -back[None, None], 1, "VALID"), -rest)
            of_x = behind.gradient_by_x(x, kernel * scale, upstream) + through_moments
            return of_x, tf.reshape(of_matrix, kernel.shape), tf.zeros_like(bias), of_gamma, of_beta

        mean = tf.linalg.matvec(matrix, of.mean, transpose_a=True) + bias
        return (with_bias(behind.applied(of.centred, kernel * scale), beta), mean, variance), gradients

    return normalised


def _variance(behind: Convolution, of: Read, kernel: Any, epsilon: float) -> Any:
    """Of y; measured on y itself where float32 would lose too much of it."""
    import tensorflow as tf

    def measured() -> Any:
        y = behind.applied(of.centred, kernel)
        return sum_of_products(y, y, fold_of(y.shape)) / tf.cast(of.count, tf.float32)

    cancels = tf.reduce_any(of.summands > CANCELS * (of.variance + epsilon))
    return tf.cond(cancels, measured, lambda: of.variance)
