"""Sites written into a graph as ones that normalise with their batch, for measuring: nobody asks for gradients.

A site takes the shortest of four ways:

- `pointwise`: the moments follow from those of what a 1 x 1 convolution reads (finetune.batchnorm.gram_kernel).
- `summed`: from two sums of a convolution's outputs about a value near their mean, which the convolution subtracts in
  its bias. What the site hands on is a depthwise convolution of one position, with a bias: one operation, to which
  TensorFlow joins the activation behind it, where Keras has a multiplication, an addition and the activation.
- `fused`: by TensorFlow's kernel, behind anything else than a convolution.
- `general`: from single operations, for masks, channels elsewhere than last, and float64.

That TensorFlow makes 0 of NaN where it joins an activation hides nothing here: the moments tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import tensorflow as tf
from keras import ops

from finetune.batchnorm.batch_moments import batch_moments
from finetune.batchnorm.channel_sums import moments_of
from finetune.batchnorm.conv_names import ConvNames
from finetune.batchnorm.gram_kernel import normalise_pointwise, worth_it
from finetune.batchnorm.kernel import kernel_takes
from finetune.batchnorm.moment_nodes import MEASURED, Watch, fused, reduced
from finetune.batchnorm.written_nodes import Template, placed, placeholder, template

Shape = tuple[int | None, ...]
VECTOR = (tf.float32, [None])


@dataclass(frozen=True)
class BatchCall:
    """One call of one site in a graph.

    inputs, outputs, mask: names of tensors. shape: of the inputs, None for what is open, or as a whole. axis: that of
    the channels; None where inputs are normalised as (-1, channels). dtypes: of inputs and outputs. behind: the
    convolution that made the inputs, which are float32 then.
    """

    site: int
    inputs: str
    outputs: str
    shape: Shape | None
    axis: int | None
    channels: int
    epsilon: float
    dtypes: tuple[Any, Any]
    mask: str | None = None
    behind: ConvNames | None = None


@dataclass(frozen=True, eq=False)
class Written:
    """A call as operations.

    outputs: the tensor that it hands on, in the dtype of its inputs. fed: by role - gamma, beta, and about, where the
    mean is expected - the tensor that is to be fed, (channels,), of `dtype`. watch: its mean is counted from `about`
    where there is one and not `precise`. off: the tensor of the mean's distance from `about`. summands: the tensor of
    what the variance would be without covariances. Whether rounding shows follows from one or the other.
    """

    nodes: Sequence[Any]
    outputs: str
    fed: Mapping[str, str]
    watch: Watch
    off: str | None = None
    summands: str | None = None
    precise: bool = False
    dtype: Any = tf.float32


def write(prefix: str, call: BatchCall, *, pointwise: bool, precise: bool) -> Written:
    """pointwise: whether that way may be taken. precise: moments reduced in float64."""
    dtype = call.dtypes[0]
    rank = len(call.shape or ())
    if call.axis is None or call.mask or not kernel_takes(rank, call.axis, dtype.name):
        return _general(prefix, call, precise=precise)
    if call.behind is None:
        written = _fused(prefix, call)
    elif pointwise and worth_it(call.behind.pointwise, call.behind.x_shape, call.behind.kernel_shape):
        written = _pointwise(prefix, call, call.behind)
    else:
        written = _summed(prefix, call, call.behind)
    if not precise:
        return written
    watch = reduced(f"{prefix}/again", call.inputs, None, call.shape or (), call.axis, dtype, precise=True)
    return replace(written, nodes=[*written.nodes, *watch.nodes], watch=watch, precise=True)


def _placed(
    prefix: str, nodes: Template, dtype: Any, roles: Sequence[str], **given: str
) -> tuple[list[Any], dict[str, str]]:
    """The operations, with placeholders for these roles, and the tensors that stand for them."""
    fed = {role: f"{prefix}/{role}:0" for role in roles}
    return [
        *(placeholder(f"{prefix}/{role}", dtype) for role in roles),
        *placed(nodes, prefix, **given, **fed),
    ], fed


def _moments(prefix: str) -> Watch:
    count, mean, variance = (f"{prefix}/{name}:0" for name in MEASURED)
    return Watch((), (count, mean, variance), fused=False)


def _fused(prefix: str, call: BatchCall) -> Written:
    fed = {role: f"{prefix}/{role}:0" for role in ("gamma", "beta")}
    watch, outputs = fused(
        prefix,
        call.inputs,
        len(call.shape or ()),
        call.dtypes[0],
        scale=fed["gamma"],
        offset=fed["beta"],
        epsilon=call.epsilon,
    )
    nodes = [*(placeholder(f"{prefix}/{role}", tf.float32) for role in fed), *watch.nodes]
    return Written(nodes, outputs, fed, watch)


def _summed(prefix: str, call: BatchCall, behind: ConvNames) -> Written:
    added = {} if behind.added is None else {"added": behind.added}
    nodes, fed = _placed(
        prefix,
        _sums(behind.shape, call.epsilon, tuple(added)),
        tf.float32,
        ("gamma", "beta", "about"),
        convolved=behind.outputs,
        **added,
    )
    return Written(nodes, f"{prefix}/outputs:0", fed, _moments(prefix), off=f"{prefix}/{MEASURED[1]}:0")


@cache
def _sums(shape: Shape, epsilon: float, added: tuple[str, ...]) -> Template:
    def build(convolved: Any, gamma: Any, beta: Any, about: Any, added: Any = None) -> None:
        bias = -about if added is None else tf.reshape(added, [-1]) - about
        y = tf.nn.bias_add(convolved, bias)
        _, mean, variance = moments_of(y, *MEASURED)
        scale = gamma * tf.math.rsqrt(variance + epsilon)
        scaled = tf.nn.depthwise_conv2d(y, tf.reshape(scale, [1, 1, -1, 1]), [1, 1, 1, 1], "VALID")
        tf.nn.bias_add(scaled, beta - mean * scale, name="outputs")

    given = dict.fromkeys(added, (tf.float32, None))
    return template(build, convolved=(tf.float32, shape), gamma=VECTOR, beta=VECTOR, about=VECTOR, **given)


def _pointwise(prefix: str, call: BatchCall, behind: ConvNames) -> Written:
    added = {} if behind.added is None else {"added": behind.added}
    nodes, fed = _placed(
        prefix,
        _products(behind.x_shape, behind.kernel_shape, call.epsilon, tuple(added)),
        tf.float32,
        ("gamma", "beta"),
        x=behind.x,
        kernel=behind.kernel,
        **added,
    )
    return Written(nodes, f"{prefix}/outputs:0", fed, _moments(prefix), summands=f"{prefix}/summands:0")


@cache
def _products(x_shape: Shape, kernel_shape: Shape, epsilon: float, added: tuple[str, ...]) -> Template:
    def build(x: Any, kernel: Any, gamma: Any, beta: Any, added: Any = None) -> None:
        bias = None if added is None else tf.reshape(added, [-1])
        outputs, moments, summands = normalise_pointwise(x, kernel, bias, gamma, beta, epsilon)
        tf.identity(outputs, name="outputs")
        tf.identity(summands, name="summands")
        _named(*moments)

    given = dict.fromkeys(added, (tf.float32, None))
    return template(
        build, x=(tf.float32, x_shape), kernel=(tf.float32, kernel_shape), gamma=VECTOR, beta=VECTOR, **given
    )


def _general(prefix: str, call: BatchCall, *, precise: bool) -> Written:
    dtype, mask = call.dtypes[0], {} if call.mask is None else {"mask": call.mask}
    kind = tf.float64 if dtype == tf.float64 else tf.float32
    nodes, fed = _placed(
        prefix,
        _operations(dtype, call.shape, call.axis, call.channels, call.epsilon, tuple(mask), precise),
        kind,
        ("gamma", "beta"),
        inputs=call.inputs,
        **mask,
    )
    return Written(nodes, f"{prefix}/outputs:0", fed, _moments(prefix), precise=precise, dtype=kind)


@cache
def _operations(
    dtype: Any,
    shape: Shape | None,
    axis: int | None,
    channels: int,
    epsilon: float,
    masks: tuple[str, ...],
    precise: bool,
) -> Template:
    def build(inputs: Any, gamma: Any, beta: Any, mask: Any = None) -> None:
        shaped, along = (tf.reshape(inputs, [-1, channels]), -1) if axis is None else (inputs, axis)
        _, mean, variance = moments = batch_moments(shaped, mask, along)
        normalised = ops.batch_normalization(
            ops.cast(shaped, mean.dtype), mean, variance, along, beta, gamma, epsilon
        )
        tf.reshape(ops.cast(normalised, inputs.dtype), tf.shape(inputs), name="outputs")
        _named(*(batch_moments(shaped, mask, along, precise=True) if precise else moments))

    kind = (tf.float64 if dtype == tf.float64 else tf.float32, [None])
    given = dict.fromkeys(masks, (tf.bool, None if shape is None else shape[:-1]))
    return template(build, inputs=(dtype, shape), gamma=kind, beta=kind, **given)


def _named(count: Any, mean: Any, variance: Any) -> None:
    for name, moment in zip(MEASURED, (count, mean, variance), strict=True):
        tf.identity(moment, name=name)
