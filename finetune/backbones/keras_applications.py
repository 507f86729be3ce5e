"""Backbones of keras.applications: every architecture, each with the pixels it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field, field_validator

from finetune.backbones.base import Backbone, BuiltBackbone
from finetune.backbones.known_names import known_name
from finetune.backbones.published import fetching
from finetune.backbones.scaling import IMAGENET_DEVIATION, IMAGENET_MEAN, Scale, rescaled, scaling, unchanged
from finetune.backbones.weights_file import load_weights
from finetune.errors import WeightsError

if TYPE_CHECKING:
    import keras


class Architecture(NamedTuple):
    """scale: what the network is given; "none" where it scales by itself. Sizes in px."""

    scale: Scale
    image_size: int = 224
    smallest: int = 32


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    dict.fromkeys(("ResNet50", "ResNet101", "ResNet152"), Architecture("caffe"))
    | dict.fromkeys(("ResNet50V2", "ResNet101V2", "ResNet152V2"), Architecture("-1..1"))
    | dict.fromkeys(("DenseNet121", "DenseNet169", "DenseNet201"), Architecture("imagenet"))
    | dict.fromkeys(("MobileNet", "MobileNetV2", "NASNetMobile"), Architecture("-1..1"))
    | dict.fromkeys(("MobileNetV3Small", "MobileNetV3Large"), Architecture("none"))
    | {
        "NASNetLarge": Architecture("-1..1", 331),
        "Xception": Architecture("-1..1", 299, 71),
        "InceptionV3": Architecture("-1..1", 299, 75),
        "InceptionResNetV2": Architecture("-1..1", 299, 75),
    }
    | {
        f"EfficientNetB{index}": Architecture("none", size)
        for index, size in enumerate((224, 240, 260, 300, 380, 456, 528, 600))
    }
    | {
        f"EfficientNetV2B{index}": Architecture("none", size)
        for index, size in enumerate((224, 240, 260, 300))
    }
    | {"EfficientNetV2S": Architecture("none", 384)}
    | dict.fromkeys(("VGG16", "VGG19"), Architecture("caffe"))
    # it scales by itself
    | {f"ConvNeXt{size}": Architecture("none") for size in ("Tiny", "Small", "Base", "Large", "XLarge")}
    | dict.fromkeys(("EfficientNetV2M", "EfficientNetV2L"), Architecture("none", 480))
)


class KerasApplications(Backbone):
    """An architecture of keras.applications without its top, with weights of your choice."""

    source: Literal["keras_applications"] = "keras_applications"
    name: str = Field(
        description="architecture as Keras names it", json_schema_extra={"enum": [*sorted(ARCHITECTURES)]}
    )
    weights: str | None = Field(
        "imagenet", description="imagenet (needs a network once); a .weights.h5 or .h5 file; null: random"
    )

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(ARCHITECTURES)

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        return known_name(name, ARCHITECTURES, "keras_applications")

    @property
    def default_image_size(self) -> int:
        return ARCHITECTURES[self.name].image_size

    def build(self, image_size: int) -> BuiltBackbone:
        architecture = ARCHITECTURES[self.name]
        if image_size < architecture.smallest:
            raise WeightsError(
                f"{self.name} needs images of at least {architecture.smallest} px, got {image_size}; "
                "set data.image_size"
            )
        origin = {"source": self.source, "name": self.name, "weights": self.weights or "random"}
        preprocess = scaling(architecture.scale)
        if self.weights == "imagenet":
            return BuiltBackbone(self._published(image_size), preprocess, origin)
        model = self._network(image_size, None)
        if self.weights is not None:
            path = Path(self.weights).expanduser()
            origin |= {
                "file": path.name,
                "sha256": load_weights(model, path, f"keras.applications {self.name}"),
            }
            if self.name.startswith("EfficientNetB"):
                preprocess = _with_missing_division(model)
        return BuiltBackbone(model, preprocess, origin)

    def _published(self, image_size: int) -> keras.Model:
        elsewhere = (
            f"import keras; keras.applications.{self.name}(include_top=False)"
            f'.save_weights("{self.name}.weights.h5")'
        )
        with fetching(f"Keras' ImageNet weights of {self.name}", elsewhere):
            return self._network(image_size, "imagenet")

    def _network(self, image_size: int, weights: str | None) -> keras.Model:
        import keras

        constructor = getattr(keras.applications, self.name)
        return constructor(include_top=False, weights=weights, input_shape=(image_size, image_size, 3))


def _with_missing_division(model: keras.Model) -> Callable[[Any], Any]:
    """What EfficientNetB0..B7 lack when their weights come from a file.

    Keras builds a division by the square root of ImageNet's deviation into them only for `weights="imagenet"`
    (tensorflow#49930). With those weights from a file the images are changed instead, so that after the network's
    own (x / 255 - mean) / sqrt(variance) they are what the weights were trained on.
    """
    import keras
    import numpy as np

    normalization = next(layer for layer in model.layers if isinstance(layer, keras.layers.Normalization))
    mean = np.ravel(keras.ops.convert_to_numpy(normalization.mean))
    if not np.allclose(mean, IMAGENET_MEAN, atol=1e-3):
        return unchanged
    slopes = [deviation**-0.5 for deviation in IMAGENET_DEVIATION]
    offsets = [255 * mean * (1 - slope) for mean, slope in zip(IMAGENET_MEAN, slopes, strict=True)]
    return lambda images: rescaled(images, slopes, offsets)
