"""A site that normalises with a batch of which each replica of a strategy holds an equal share: one exchange a call.

Keras' own synchronised call adds up counts, sums and sums of squares, in three exchanges, and takes the variance as
E[x^2] - E[x]^2, which cancels in float32 where a mean is far from zero. Here each replica sends the mean and the
variance of its share as they are around a mean that all know already, the running one.
"""

from __future__ import annotations

from typing import Any


def normalise_with_all_shares(
    inputs: Any, gamma: Any, beta: Any, epsilon: float, around: Any
) -> tuple[Any, Any, Any]:
    """As finetune.batchnorm.kernel.normalise_with_batch, with the moments of all shares together.

    To be called in each replica, on as many positions as in the others. around: (channels,), the same in all of them,
    best near the means. What is exchanged is 2 x channels values forward, and as many back for the gradient.
    """
    import tensorflow as tf

    x = tf.cast(inputs, tf.float32)
    around = tf.stop_gradient(tf.cast(tf.convert_to_tensor(around), tf.float32))
    mean, variance = tf.nn.moments(x, list(range(len(inputs.shape) - 1)))
    off = mean - around
    # of equal shares, the mean of the second moments is the second moment
    together = tf.distribute.get_replica_context().all_reduce(
        tf.distribute.ReduceOp.MEAN, tf.stack([off, variance + tf.square(off)])
    )
    mean = around + together[0]
    variance = tf.maximum(together[1] - tf.square(together[0]), 0.0)
    scale, offset = (
        None if v is None else tf.cast(tf.convert_to_tensor(v), tf.float32) for v in (gamma, beta)
    )
    outputs = tf.nn.batch_normalization(x, mean, variance, offset, scale, epsilon)
    return tf.cast(outputs, inputs.dtype), tf.stop_gradient(mean), tf.stop_gradient(variance)
