"""How a picture becomes what a model reads: size, values, order of the colours, layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from finetune.backbones.scaling import CAFFE_MEAN_BGR, IMAGENET_DEVIATION, IMAGENET_MEAN
from finetune.component import Component

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Scale = Literal["none", "unit", "-1..1", "imagenet", "caffe"]
Order = Literal["rgb", "bgr", "grey"]
Layout = Literal["nhwc", "nchw"]

WORDS: dict[Scale, str] = {
    "none": "values 0..255",
    "unit": "values / 255",
    "-1..1": "values / 127.5 - 1",
    "imagenet": "(values / 255 - mean) / deviation of ImageNet, as torchvision has it",
    "caffe": "values - mean of ImageNet, as Caffe has it",
}
LUMA = (0.299, 0.587, 0.114)
"""Grey of red, green and blue (ITU-R BT.601), as Pillow has it."""


class Preprocessing(Component):
    """What is done to uint8 RGB pictures before a model reads them.

    order: "bgr" for `caffe` and "rgb" otherwise where left out; "grey" is one channel. dtype: what the model reads.
    """

    image_size: int = Field(ge=1, description="side in px")
    scale: Scale = "none"
    order: Order | None = None
    layout: Layout = "nhwc"
    dtype: str = "float32"

    @model_validator(mode="after")
    def fits(self) -> Preprocessing:
        if self.scale != "none" and "float" not in self.dtype:
            raise ValueError(f"the model reads {self.dtype}, which cannot hold scale {self.scale}; use none")
        if self.order == "grey" and self.scale in ("imagenet", "caffe"):
            raise ValueError(
                f"scale {self.scale} is one of colours, the model reads grey; use none, unit or -1..1"
            )
        return self

    @property
    def colours(self) -> Order:
        return self.order or ("bgr" if self.scale == "caffe" else "rgb")

    def apply(self, images: NDArray[np.uint8]) -> NDArray:
        """RGB uint8 (batch, height, width, 3), already of the right size -> what the model reads, in its dtype."""
        import numpy as np

        values = images.astype(np.float32)
        if self.colours == "grey":
            values = values @ np.array(LUMA, np.float32)[:, None]
        slope, offset = (np.array(numbers, np.float32) for numbers in slopes_and_offsets(self.scale))
        values = values * slope + offset
        if self.colours == "bgr":
            values = values[..., ::-1]
        if self.layout == "nchw":
            values = values.transpose(0, 3, 1, 2)
        if "float" not in self.dtype:
            values = np.rint(values)
        return np.ascontiguousarray(values.astype(self.dtype))

    def __str__(self) -> str:
        layout = (
            "batch x height x width x channels"
            if self.layout == "nhwc"
            else "batch x channels x height x width"
        )
        return (
            f"{self.image_size} x {self.image_size} px, {self.colours}, {WORDS[self.scale]} "
            f"(scale {self.scale}), {layout}, {self.dtype}"
        )


def slopes_and_offsets(scale: Scale) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of values 0..255, for red, green and blue, or one for all: values * slope + offset."""
    if scale == "imagenet":
        slopes = tuple(1 / (255 * deviation) for deviation in IMAGENET_DEVIATION)
        pairs = zip(IMAGENET_MEAN, IMAGENET_DEVIATION, strict=True)
        return slopes, tuple(-mean / deviation for mean, deviation in pairs)
    if scale == "caffe":
        return (1.0,), tuple(-mean for mean in reversed(CAFFE_MEAN_BGR))
    return {"none": ((1.0,), (0.0,)), "unit": ((1 / 255,), (0.0,)), "-1..1": ((1 / 127.5,), (-1.0,))}[scale]
