"""EfficientNet-Lite (Tan & Le 2019, arXiv:1905.11946; its "lite" form without squeeze-and-excitation, with ReLU6).

Built of plain Keras layers: keras-cv's class of the same name has another scaling of the images inside and pads
strided convolutions by hand, which is another network at odd sizes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray

MOMENTUM, EPSILON = 0.99, 1e-3
"""Of all sites, as the network was trained; Keras' momentum."""

DROP_CONNECT = 0.2
"""Share of residual branches that the last block leaves out in training; the blocks before it fewer, in proportion."""

STEM, TOP = 32, 1280
"""Channels that no variant scales."""


class Variant(NamedTuple):
    """width, depth: what the blocks of EfficientNet-B0 are scaled by. image_size: in px, of the pretraining."""

    width: float
    depth: float
    image_size: int


VARIANTS = {"efficientnet_lite0": Variant(1.0, 1.0, 224), "efficientnet_lite1": Variant(1.0, 1.1, 240)}


class _Stage(NamedTuple):
    kernel: int
    repeats: int
    channels: int
    expansion: int
    stride: int


STAGES = (
    _Stage(3, 1, 16, 1, 1),
    _Stage(3, 2, 24, 6, 2),
    _Stage(5, 2, 40, 6, 2),
    _Stage(3, 3, 80, 6, 2),
    _Stage(5, 3, 112, 6, 1),
    _Stage(5, 4, 192, 6, 2),
    _Stage(3, 1, 320, 6, 1),
)


@dataclass(frozen=True)
class Block:
    """One inverted bottleneck. name: in Keras, "block2a". number: in PyTorch."""

    name: str
    number: int
    kernel: int
    inputs: int
    outputs: int
    expansion: int
    stride: int

    @property
    def has_shortcut(self) -> bool:
        return self.stride == 1 and self.inputs == self.outputs


def blocks(variant: Variant) -> Iterator[Block]:
    """All blocks in order; the first and the last stage are never repeated more often."""
    number, inputs = 0, STEM
    for place, stage in enumerate(STAGES, 1):
        outputs = _rounded(stage.channels * variant.width)
        ends = place in (1, len(STAGES))
        for turn in range(stage.repeats if ends else math.ceil(stage.repeats * variant.depth)):
            name = f"block{place}{chr(ord('a') + turn)}"
            yield Block(
                name, number, stage.kernel, inputs, outputs, stage.expansion, 1 if turn else stage.stride
            )
            number, inputs = number + 1, outputs


def _rounded(channels: float) -> int:
    """To a multiple of 8, and never by more than a tenth down."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def efficientnet_lite(name: str, image_size: int) -> keras.Model:
    """Scaled images (batch, image_size, image_size, 3) -> features (batch, h, w, 1280), without its top."""
    import keras
    from keras import layers

    variant = VARIANTS[name]
    images = keras.Input((image_size, image_size, 3), name="image")
    x = _normalised(layers.Conv2D(STEM, 3, 2, "same", use_bias=False, name="stem_conv")(images), "stem")
    every = list(blocks(variant))
    for block in every:
        x = _block(x, block, DROP_CONNECT * block.number / len(every))
    x = _normalised(layers.Conv2D(TOP, 1, use_bias=False, name="top_conv")(x), "top")
    return keras.Model(images, x, name=name)


def _block(x: Any, block: Block, drop: float) -> Any:
    from keras import layers

    shortcut, name = x, block.name
    if block.expansion > 1:
        expand = layers.Conv2D(block.inputs * block.expansion, 1, use_bias=False, name=f"{name}_expand_conv")
        x = _normalised(expand(x), f"{name}_expand")
    depthwise = layers.DepthwiseConv2D(
        block.kernel, block.stride, "same", use_bias=False, name=f"{name}_depthwise_conv"
    )
    x = _normalised(depthwise(x), f"{name}_depthwise")
    x = layers.Conv2D(block.outputs, 1, use_bias=False, name=f"{name}_project_conv")(x)
    x = _normalised(x, f"{name}_project", activation=False)
    if not block.has_shortcut:
        return x
    if drop:
        x = layers.Dropout(drop, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(x)
    return layers.Add(name=f"{name}_add")([x, shortcut])


def _normalised(x: Any, name: str, *, activation: bool = True) -> Any:
    from keras import layers

    x = layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x) if activation else x


def fill(model: keras.Model, name: str, tensors: Mapping[str, NDArray]) -> None:
    """Put the tensors of the PyTorch package `efficientnet_lite_pytorch` into the network.

    Raises KeyError for one that is missing, ValueError for another shape or one that has no place.
    """
    left = {
        key: value
        for key, value in tensors.items()
        if not key.startswith("_fc.") and not key.endswith("num_batches_tracked")
    }
    for layer, keys in layers_in_torch(VARIANTS[name]):
        values = [left.pop(key) for key in keys]
        if len(keys) == 1:
            # (out, in / groups, height, width); a depthwise kernel has its channels second in Keras
            order = (2, 3, 0, 1) if "depthwise" in layer else (2, 3, 1, 0)
            values = [values[0].transpose(order)]
        model.get_layer(layer).set_weights(values)
    if left:
        raise ValueError(f"no place for {next(iter(left))}")


def layers_in_torch(variant: Variant) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every layer that has weights, with what they are called there."""

    def site(layer: str, prefix: str) -> tuple[str, tuple[str, ...]]:
        return f"{layer}_bn", tuple(
            f"{prefix}.{part}" for part in ("weight", "bias", "running_mean", "running_var")
        )

    yield "stem_conv", ("_conv_stem.weight",)
    yield site("stem", "_bn0")
    for block in blocks(variant):
        parts = {"depthwise": "_bn1", "project": "_bn2"}
        if block.expansion > 1:
            parts = {"expand": "_bn0", **parts}
        for part, bn in parts.items():
            yield f"{block.name}_{part}_conv", (f"_blocks.{block.number}._{part}_conv.weight",)
            yield site(f"{block.name}_{part}", f"_blocks.{block.number}.{bn}")
    yield "top_conv", ("_conv_head.weight",)
    yield site("top", "_bn1")
