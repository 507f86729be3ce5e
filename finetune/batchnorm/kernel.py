"""The fastest kernel for a site, in batch mode or in running mode, behind one question to the Keras backend.

Keras computes BN from single operations (mean, squared difference, rsqrt, multiply, subtract, add), each of
which reads the whole input again. TensorFlow's FusedBatchNormV3 does all of it in one kernel, and its gradient
in another, in far more time on a CPU than reading its inputs takes. Behind a convolution there are shorter ways: the
moments of what it reads (finetune.batchnorm.gram_gradients), or two sums (finetune.batchnorm.sum_kernel). A site that
normalises with its running statistics is a multiplication and an addition, which the convolution does.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from finetune.batchnorm.gram_gradients import normalise_behind_pointwise
from finetune.batchnorm.gram_kernel import worth_it
from finetune.batchnorm.producer import convolution_to_use
from finetune.batchnorm.sum_kernel import normalise_about

FUSED_DTYPES = ("float32", "float16", "bfloat16")


def fusible(inputs: Any, axis: int) -> bool:
    """Whether `normalise_with_batch` takes these inputs: TensorFlow, channels last, rank 2 to 5, no float64."""
    dtype = keras.backend.standardize_dtype(inputs.dtype)
    return keras.backend.backend() == "tensorflow" and kernel_takes(len(inputs.shape), axis, dtype)


def kernel_takes(rank: int, axis: int, dtype: str) -> bool:
    """Whether TensorFlow's fused kernel takes inputs of this rank and dtype with their channels at this axis."""
    return 2 <= rank <= 5 and axis % rank == rank - 1 and dtype in FUSED_DTYPES


def normalise_with_batch(
    inputs: Any, gamma: Any, beta: Any, epsilon: float, about: Any = None
) -> tuple[Any, Any, Any]:
    """Normalise with the batch's own moments: outputs, mean and biased variance.

    inputs: (batch, ..., channels), such that `fusible` is true. gamma, beta: (channels,), None is ones, zeros.
    about: where the mean is expected, (channels,), such as the running mean; None where nothing is known. The outputs
    have the dtype of the inputs; mean and variance are float32, (channels,), and the arithmetic is float32 whatever the
    inputs. Gradients flow from the outputs to inputs, gamma and beta and are those of the definition, moments included;
    mean and variance are constants to them.
    """
    import tensorflow as tf

    channels = inputs.shape[-1]
    gamma = tf.ones([channels]) if gamma is None else tf.cast(gamma, tf.float32)
    beta = tf.zeros([channels]) if beta is None else tf.cast(beta, tf.float32)
    behind = convolution_to_use(inputs)
    if behind is not None and worth_it(behind.pointwise, behind.x.shape, behind.kernel.shape):
        return normalise_behind_pointwise(behind, gamma, beta, epsilon)
    if behind is not None and about is not None:
        return normalise_about(behind, about, gamma, beta, epsilon)
    # the kernel knows rank 4 only, and to its moments all positions are alike
    images = inputs if len(inputs.shape) == 4 else tf.reshape(inputs, [1, 1, -1, channels])
    outputs, mean, unbiased, *_ = tf.raw_ops.FusedBatchNormV3(
        x=images,
        scale=gamma,
        offset=beta,
        mean=tf.zeros([0]),
        variance=tf.zeros([0]),
        epsilon=epsilon,
        is_training=True,
    )
    mean = _not_hidden(outputs, mean)
    if images is not inputs:
        outputs = tf.reshape(outputs, tf.shape(inputs))
        outputs.set_shape(inputs.shape)
    positions = tf.size(images) // channels
    return outputs, tf.stop_gradient(mean), tf.stop_gradient(_biased(unbiased, positions))


def scaled(inputs: Any, scale: Any, offset: Any) -> Any:
    """inputs * scale + offset, in the dtype of scale and offset, (channels,): those of a site in running mode.

    inputs: (batch, ..., channels). Behind a convolution the convolution does it, unless its kernel is the larger.
    """
    behind = convolution_to_use(inputs)
    if behind is not None and behind.outweighs_kernel:
        return behind.scaled(scale, offset)
    return ops.cast(inputs, scale.dtype) * scale + offset


def _not_hidden(outputs: Any, mean: Any) -> Any:
    """The mean, asked of the outputs too, (batch, height, width, channels), whether it is a number.

    TensorFlow joins the kernel with a ReLU that alone reads its outputs, and that turns NaN into 0: the loss of a
    training that has left the numbers would go on as if nothing were. With another reader they stay apart.
    """
    import tensorflow as tf

    one = tf.reduce_sum(outputs[:1, :1, :1, 0])
    return tf.where(tf.math.is_nan(tf.cast(one, tf.float32)), np.nan, mean)


def _biased(unbiased: Any, positions: Any) -> Any:
    """The kernel's variance is divided by n - 1 (Bessel's correction); Keras' and ours by n."""
    import tensorflow as tf

    n = tf.cast(positions, tf.float64)
    share = tf.cast((n - 1.0) / n, tf.float32)
    # a single position: n - 1 is 0, and what the kernel then returns differs between devices
    return tf.where(positions == 1, tf.zeros_like(unbiased), unbiased * share)
