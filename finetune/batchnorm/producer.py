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
            self.operation.type == "Conv2D"
            and self.kernel.shape[:2] == (1, 1)
            and self.kernel.shape[2] == self.x.shape[-1]
            and list(self._attribute("strides")) == [1, 1, 1, 1]
            and self._padding != "EXPLICIT"
        )

    def moved(self, offset: Any) -> Any:
        """y + offset."""
        import tensorflow as tf

        bias = self.bias
        return tf.nn.bias_add(self._run(self.kernel), offset if bias is None else offset + bias)

    def scaled(self, scale: Any, offset: Any) -> Any:
        """y * scale + offset, both (channels,): by a kernel and a bias that hold them, so that y is written once.

        NaN stays NaN: TensorFlow would join the bias with a ReLU behind it to a kernel that makes 0 of it, and does not
        look past the check of a shape that is known (tests/test_tensorflow_behaviour.py).
        """
        import tensorflow as tf

        bias = self.bias
        if bias is not None:
            offset = offset + bias * scale
        # the last axes of a kernel are the channels that it makes: one, or those of each channel it reads
        made = self.kernel.shape[-1:] if self.operation.type == "Conv2D" else self.kernel.shape[2:]
        outputs = tf.nn.bias_add(self._run(self.kernel * tf.reshape(scale, made)), offset)
        return tf.ensure_shape(outputs, outputs.shape)

    def _run(self, kernel: Any) -> Any:
        import tensorflow as tf

        shared: dict[str, Any] = {
            "strides": list(self._attribute("strides")),
            "padding": self._padding,
            "explicit_paddings": list(self._attribute("explicit_paddings")),
            "dilations": list(self._attribute("dilations")),
        }
        if self.operation.type == "Conv2D":
            return tf.raw_ops.Conv2D(input=self.x, filter=kernel, **shared)
        return tf.raw_ops.DepthwiseConv2dNative(input=self.x, filter=kernel, **shared)

    @property
    def _padding(self) -> str:
        return str(self._attribute("padding").decode())

    def _attribute(self, name: str) -> Any:
        return self.operation.get_attr(name)


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
