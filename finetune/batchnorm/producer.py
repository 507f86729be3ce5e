"""The convolution whose outputs a site normalises, where the graph that is being traced shows one.

What comes in front of a site can say more cheaply what the site needs of its inputs. A convolution that was traced
and has no reader any more is dropped by TensorFlow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from finetune.batchnorm.channel_sums import sums_are_faster

KINDS = ("Conv2D", "DepthwiseConv2dNative")
IMAGES = 32
"""Of a batch whose size is open when a training is traced."""


@dataclass(frozen=True, eq=False)
class Convolution:
    """y = x * kernel + bias, channels last, float32. operation: what was traced.

    added: the bias as it was traced, (channels,) with or without axes of one before it, or None.
    """

    x: Any
    kernel: Any
    added: Any | None
    operation: Any

    @property
    def bias(self) -> Any | None:
        """(channels,), or None."""
        import tensorflow as tf

        return None if self.added is None else tf.reshape(self.added, [-1])

    @property
    def pointwise(self) -> bool:
        """One position of x makes one of y: a matrix product."""
        return (
            self._dense
            and self.kernel.shape[:2] == (1, 1)
            and self.kernel.shape[2] == self.x.shape[-1]
            and list(self._attribute("strides")) == [1, 1, 1, 1]
            and self._padding != "EXPLICIT"
        )

    @property
    def outweighs_kernel(self) -> bool:
        """Whether its outputs for a batch of `IMAGES` are more numbers than its kernel: so that what multiplies them is
        better multiplied into the kernel. Where their shape is open, they are taken for more."""
        _, height, width, channels = self.operation.outputs[0].shape
        if height is None or width is None:
            return True
        return bool(IMAGES * height * width * channels > self.kernel.shape.num_elements())

    def scaled(self, scale: Any, offset: Any) -> Any:
        """y * scale + offset, both (channels,): by a kernel and a bias that hold them, so that y is written once.

        NaN stays NaN: TensorFlow would join the bias with a ReLU behind it to a kernel that makes 0 of it, and does not
        look past the check of a shape that is known (tests/test_tensorflow_behaviour.py).
        """
        bias = self.bias
        if bias is not None:
            offset = offset + bias * scale
        return with_bias(self.applied(self.x, self.across(scale, self.kernel)), offset)

    def across(self, scale: Any, kernel: Any) -> Any:
        """The kernel whose outputs are those of this one times the scale, (channels,)."""
        import tensorflow as tf

        # the last axes of a kernel are the channels that it makes: one, or those of each channel it reads
        made = self.kernel.shape[-1:] if self._dense else self.kernel.shape[2:]
        return kernel * tf.reshape(scale, made)

    def applied(self, x: Any, kernel: Any) -> Any:
        """x * kernel, of the shapes of this one's."""
        import tensorflow as tf

        run = tf.raw_ops.Conv2D if self._dense else tf.raw_ops.DepthwiseConv2dNative
        return run(input=x, filter=kernel, **self._shared)

    def gradient_by_x(self, x: Any, kernel: Any, upstream: Any) -> Any:
        """That of sum(upstream * applied(x, kernel))."""
        import tensorflow as tf

        ops = tf.raw_ops
        run = ops.Conv2DBackpropInput if self._dense else ops.DepthwiseConv2dNativeBackpropInput
        return run(input_sizes=tf.shape(x), filter=kernel, out_backprop=upstream, **self._shared)

    def gradient_by_kernel(self, x: Any, upstream: Any) -> Any:
        """That of sum(upstream * applied(x, kernel))."""
        import tensorflow as tf

        ops, sizes = tf.raw_ops, list(self.kernel.shape)
        run = ops.Conv2DBackpropFilter if self._dense else ops.DepthwiseConv2dNativeBackpropFilter
        return run(input=x, filter_sizes=sizes, out_backprop=upstream, **self._shared)

    @property
    def _dense(self) -> bool:
        return str(self.operation.type) == "Conv2D"

    @property
    def _shared(self) -> dict[str, Any]:
        return {
            "strides": list(self._attribute("strides")),
            "padding": self._padding,
            "explicit_paddings": list(self._attribute("explicit_paddings")),
            "dilations": list(self._attribute("dilations")),
        }

    @property
    def _padding(self) -> str:
        return str(self._attribute("padding").decode())

    def _attribute(self, name: str) -> Any:
        return self.operation.get_attr(name)


def with_bias(outputs: Any, offset: Any) -> Any:
    """outputs + offset, (channels,), which TensorFlow joins with what is before it and with nothing behind it."""
    import tensorflow as tf

    outputs = tf.nn.bias_add(outputs, offset)
    return tf.ensure_shape(outputs, outputs.shape)


def convolution_to_use(inputs: Any) -> Convolution | None:
    """`convolution_behind`, but on an accelerator: there the fused kernel is cuDNN's, and products may be rounded to 10
    bits (TF32)."""
    behind = convolution_behind(inputs)
    return behind if behind is not None and sums_are_faster() else None


def convolution_behind(inputs: Any) -> Convolution | None:
    """That of these inputs of a site; None where the backend is another, where nothing is traced, and where the inputs
    come from anything else, are not float32, or have their channels elsewhere than last."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    if tf.executing_eagerly() or not tf.is_tensor(inputs) or inputs.dtype != tf.float32:
        return None
    operation, added = _without_bias(inputs)
    if operation.type not in KINDS or operation.get_attr("data_format") != b"NHWC":
        return None
    x, kernel = operation.inputs
    if not (kernel.shape.is_fully_defined() and x.shape[-1]):
        return None
    return Convolution(x, kernel, added, operation)


def _without_bias(inputs: Any) -> tuple[Any, Any | None]:
    """The operation behind the inputs; where it adds a bias to the channels, the one behind that, and the bias."""
    operation = inputs.op
    if operation.type not in ("AddV2", "BiasAdd"):
        return operation, None
    first, second = operation.inputs
    channels = inputs.shape[-1]
    if first.op.type in KINDS and second.shape.num_elements() == channels == second.shape[-1]:
        return first.op, second
    return operation, None
