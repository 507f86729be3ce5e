"""Operations that take the moments of a tensor inside a graph, and what their results mean.

Of images on a CPU these are two sums. Elsewhere, where TensorFlow has its fused kernel for the tensor, it is one
operation, which also gives what a site hands on that normalises with the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from finetune.batchnorm.batch_moments import batch_moments
from finetune.batchnorm.channel_sums import moments_of
from finetune.batchnorm.moments import PopulationMoments
from finetune.batchnorm.written_nodes import Template, placed, template

Shape = tuple[int | None, ...]

MEASURED = ("measured/count", "measured/mean", "measured/variance")
"""Names in a scratch graph; TensorFlow would number a "mean" beside a "Mean"."""


@dataclass(frozen=True, eq=False)
class Watch:
    """One tensor whose moments are taken.

    nodes: added for it. tensors: of count, mean and variance. fused: the count is that of all values of the tensor, and
    the variance is divided by n - 1, as the kernel gives them.
    """

    nodes: Sequence[Any]
    tensors: tuple[str, str, str]
    fused: bool

    def moments(self, count: Any, mean: ArrayLike, variance: ArrayLike) -> PopulationMoments:
        """From the values of `tensors`."""
        mean, variance = np.asarray(mean, np.float64), np.asarray(variance, np.float64)
        if not self.fused:
            return PopulationMoments.of_batch(float(count), mean, variance)
        n = float(count) / mean.size
        # of a single position the kernel's variance means nothing, and differs between devices
        return PopulationMoments(n, mean, variance * (n - 1) if n > 1 else np.zeros_like(mean))


def fused(
    prefix: str,
    tensor: str,
    rank: int,
    dtype: Any,
    *,
    scale: str,
    offset: str,
    epsilon: float = 1.0,
) -> tuple[Watch, str]:
    """The moments of a tensor (batch, ..., channels), and the tensor normalised with them.

    scale, offset: tensors (channels,), float32, what gamma and beta are to the normalised values.
    """
    nodes = placed(_kernel(rank, dtype, epsilon), prefix, inputs=tensor, scale=scale, offset=offset)
    names = (f"{prefix}/size:0", f"{prefix}/kernel:1", f"{prefix}/kernel:2")
    return Watch(nodes, names, fused=True), f"{prefix}/outputs:0" if rank != 4 else f"{prefix}/kernel:0"


@cache
def _kernel(rank: int, dtype: Any, epsilon: float) -> Template:
    def build(inputs: Any, scale: Any, offset: Any) -> None:
        # the kernel knows rank 4 only, and to its moments all positions are alike
        shape = tf.concat([[1, 1, -1], tf.shape(scale)], 0)
        tf.raw_ops.FusedBatchNormV3(
            x=inputs if rank == 4 else tf.reshape(inputs, shape),
            scale=scale,
            offset=offset,
            mean=tf.zeros([0]),
            variance=tf.zeros([0]),
            epsilon=epsilon,
            is_training=True,
            name="kernel",
        )
        tf.size(inputs, tf.int64, name="size")
        if rank != 4:
            kernel = tf.compat.v1.get_default_graph().get_tensor_by_name("kernel:0")
            tf.reshape(kernel, tf.shape(inputs), name="outputs")

    return template(
        build, inputs=(dtype, [None] * rank), scale=(tf.float32, [None]), offset=(tf.float32, [None])
    )


def summed(prefix: str, tensor: str, shape: Shape) -> Watch:
    """The moments of a float32 tensor (batch, height, width, channels), of which only the batch may be open.

    Two sums about what the first image says of the mean: rounding is that of the tensor itself wherever its mean is.
    """
    count, mean, variance = (f"{prefix}/{name}:0" for name in MEASURED)
    return Watch(placed(_sums(shape), prefix, inputs=tensor), (count, mean, variance), fused=False)


@cache
def _sums(shape: Shape) -> Template:
    def build(inputs: Any) -> None:
        about = tf.reduce_mean(inputs[:1], [0, 1, 2])
        count, mean, variance = MEASURED
        _, off, _ = moments_of(tf.nn.bias_add(inputs, -about), count, None, variance)
        tf.add(tf.cast(about, tf.float64), tf.cast(off, tf.float64), name=mean)

    return template(build, inputs=(tf.float32, shape))


def reduced(
    prefix: str, tensor: str, mask: str | None, shape: Shape, axis: int, dtype: Any, *, precise: bool
) -> Watch:
    """The moments of a tensor of any kind; see batch_moments."""
    given = {"inputs": tensor} if mask is None else {"inputs": tensor, "mask": mask}
    nodes = placed(_reduction(shape, axis, dtype, mask is not None, precise), prefix, **given)
    count, mean, variance = (f"{prefix}/{name}:0" for name in MEASURED)
    return Watch(nodes, (count, mean, variance), fused=False)


@cache
def _reduction(shape: Shape, axis: int, dtype: Any, masked: bool, precise: bool) -> Template:
    def build(inputs: Any, mask: Any = None) -> None:
        moments = batch_moments(inputs, mask, axis, precise=precise)
        for name, moment in zip(MEASURED, moments, strict=True):
            tf.identity(moment, name=name)

    mask = {"mask": (tf.bool, shape[:-1])} if masked else {}
    return template(build, inputs=(dtype, shape), **mask)
