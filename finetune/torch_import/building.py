"""Layers whose weights come from a state dict, tensor by tensor, until none is left.

What differs between the two: PyTorch pads alike on both sides, Keras' "same" does not, so padding is a layer of its
own; kernels are (out, in, height, width) there; its momentum of 0.1 is the share of the new value, Keras' 0.9 that of
the old one; both normalise with epsilon inside the root. PyTorch follows the unbiased variance of a batch, Keras the
biased one: what is stored is taken over as it is, so that both compute the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from finetune.errors import WeightsError

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray

MOMENTUM, EPSILON = 0.9, 1e-5
"""Those of torch.nn.BatchNorm2d, in Keras' convention."""

PARTS = ("weight", "bias", "running_mean", "running_var")


class StateDict:
    """Tensors by name, taken one after another; what is taken waits to be put into its layer."""

    def __init__(self, tensors: Mapping[str, NDArray]) -> None:
        self._left = {
            name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")
        }
        self._waiting: list[tuple[keras.Layer, list[NDArray]]] = []

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises WeightsError where there is no such tensor."""
        if name not in self._left:
            raise WeightsError(f"the state dict has no {name}, which its layout needs")
        return tuple(self._left[name].shape)

    def convolved(self, x: Any, name: str, stride: int = 1) -> Any:
        """With the kernel `name`.weight, padded by half its size on every side; depthwise where it has one input."""
        from keras import layers

        outputs, inputs, size, _ = self.shape(f"{name}.weight")
        path = name.replace(".", "_")
        if size > 1:
            x = layers.ZeroPadding2D(size // 2, name=f"{path}_pad")(x)
        if inputs == x.shape[-1]:
            layer = layers.Conv2D(outputs, size, stride, use_bias=False, name=path)
            order = (2, 3, 1, 0)
        elif inputs == 1 and outputs == x.shape[-1]:
            layer = layers.DepthwiseConv2D(size, stride, use_bias=False, name=path)
            order = (2, 3, 0, 1)
        else:
            raise WeightsError(
                f"{name}.weight is {self.shape(f'{name}.weight')} on {x.shape[-1]} channels: grouped convolutions "
                "(ResNeXt, RegNet) are not known"
            )
        self._waiting.append((layer, [self._left.pop(f"{name}.weight").transpose(order)]))
        return layer(x)

    def normalised(self, x: Any, name: str) -> Any:
        from keras import layers

        layer = layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, name=name.replace(".", "_"))
        for part in PARTS:
            self.shape(f"{name}.{part}")
        self._waiting.append((layer, [self._left.pop(f"{name}.{part}") for part in PARTS]))
        return layer(x)

    def classified(self, x: Any, name: str) -> Any:
        """Probabilities of pooled features."""
        from keras import layers

        classes, _ = self.shape(f"{name}.weight")
        layer = layers.Dense(classes, activation="softmax", name="classes")
        kernel, bias = self._left.pop(f"{name}.weight"), self._left.pop(f"{name}.bias")
        self._waiting.append((layer, [kernel.T, bias]))
        return layer(x)

    def fill(self) -> None:
        """Put every tensor into its layer. Raises WeightsError where one is left that no layer takes, or has another
        shape."""
        if self._left:
            names = list(self._left)
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise WeightsError(
                f"the state dict has tensors that this layout does not: {', '.join(names[:3])}{more}; it is of another "
                "network, perhaps a variant with a deep stem or attention"
            )
        for layer, values in self._waiting:
            try:
                layer.set_weights(values)
            except ValueError as error:
                raise WeightsError(f"{layer.name}: {error}") from error
