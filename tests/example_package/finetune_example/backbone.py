"""A small network with two sites in depth, for quick tries."""

from typing import Literal

from pydantic import Field

from finetune.backbones.base import Backbone, BuiltBackbone


class TwoSites(Backbone):
    """Two convolutions with random weights, a BN site behind each."""

    source: Literal["two_sites"] = "two_sites"
    filters: int = Field(4, ge=1, description="of each convolution")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return ()

    @property
    def default_image_size(self) -> int:
        return 16

    def build(self, image_size: int) -> BuiltBackbone:
        import keras

        inputs = x = keras.Input((image_size, image_size, 3))
        for place in (1, 2):
            x = keras.layers.Conv2D(self.filters, 3, use_bias=False, name=f"conv_{place}")(x)
            x = keras.layers.ReLU()(keras.layers.BatchNormalization(name=f"bn_{place}")(x))
        return BuiltBackbone(keras.Model(inputs, x, name="two_sites"), lambda images: images / 255.0)
