"""How pretrained networks expect their pixels: five ways, as plain Keras operations that any Keras reloads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

Scale = Literal["none", "0..1", "-1..1", "imagenet", "caffe"]
"""What RGB values 0..255 become: "imagenet" is (x / 255 - mean) / deviation as torchvision has it (Keras' mode
"torch"); "caffe" is BGR minus ImageNet's mean, not divided."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)


def unchanged(images: Any) -> Any:
    return images


def scaling(scale: Scale) -> Callable[[Any], Any]:
    """The function from a tensor of RGB values 0..255, (batch, height, width, 3), to a scaled one."""
    if scale == "none":
        return unchanged
    if scale == "caffe":
        return _caffe
    if scale == "0..1":
        return lambda images: rescaled(images, 1 / 255, 0.0)
    if scale == "-1..1":
        return lambda images: rescaled(images, 1 / 127.5, -1.0)
    slopes = [1 / (255 * deviation) for deviation in IMAGENET_DEVIATION]
    offsets = [-mean / deviation for mean, deviation in zip(IMAGENET_MEAN, IMAGENET_DEVIATION, strict=True)]
    return lambda images: rescaled(images, slopes, offsets)


def _caffe(images: Any) -> Any:
    import keras

    return rescaled(keras.ops.flip(images, axis=-1), 1.0, [-mean for mean in CAFFE_MEAN_BGR])


def rescaled(images: Any, slope: float | list[float], offset: float | list[float]) -> Any:
    """images * slope + offset, a number or one a channel."""
    import keras

    # half precision cannot tell neighbouring pixel values apart, whatever the network computes in
    return keras.layers.Rescaling(slope, offset, dtype="float32")(images)
