"""Backbones of keras-cv 0.9, built without a network (Apache-2.0, The KerasCV Authors).

keras-cv's own named constructors ask a server for the architecture even for random weights; the constructor
arguments in keras_cv_architectures.json spare that. All its ImageNet weights were trained at 224 px on x / 255
(keras-cv's examples/training/classification/imagenet), which `include_rescaling` puts inside the network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from finetune.backbones.base import Backbone, BuiltBackbone
from finetune.backbones.known_names import known_name
from finetune.backbones.published import fetching
from finetune.backbones.scaling import unchanged
from finetune.backbones.weights_file import load_weights
from finetune.errors import WeightsError

if TYPE_CHECKING:
    import keras


RELOADED_WHOLE = {"CSPDarkNetBackbone", "MiTBackbone", "MobileNetV3Backbone"}
"""Some layers in these cannot be read back alone (a Lambda, a constructor without `name`)."""


@cache
def architectures() -> dict[str, Any]:
    """By name: class, constructor arguments, and whether ImageNet weights are published."""
    table = Path(__file__).with_name("keras_cv_architectures.json")
    entries: dict[str, Any] = json.loads(table.read_text("utf-8"))["architectures"]
    return entries


def keras_cv_network(
    class_name: str, arguments: Mapping[str, Any], side: int | None, name: str
) -> keras.Model:
    """RGB 0..255 (batch, side, side, 3) -> features; `side` None takes any size.

    A plain functional model where it can be: keras-cv's own model class reloads only with keras-cv, and
    with a warning a block.
    """
    import keras
    import keras_cv

    # EfficientNet pads by the static size, and MiT reshapes by it: a known side is right at odd sizes too
    network = getattr(keras_cv.models, class_name)(
        **arguments, include_rescaling=True, input_shape=(side, side, 3), name=name
    )
    if class_name in RELOADED_WHOLE:
        return network
    return keras.Model(network.inputs[0], network.outputs[0], name=name)


class KerasCV(Backbone):
    """An architecture of keras-cv with weights of your choice."""

    source: Literal["keras_cv"] = "keras_cv"
    name: str = Field(
        description="architecture as keras-cv names it",
        json_schema_extra={"enum": [*sorted(architectures())]},
    )
    weights: str | None = Field(
        "imagenet",
        validate_default=True,
        description="imagenet (needs a network once); a .weights.h5 or .h5 file; a preset folder; null: random",
    )

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(architectures())

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        stem = name.removesuffix("_imagenet")
        if stem != name and stem in architectures():
            raise PydanticCustomError(
                "preset_name",
                "{name} is a preset; write name: {stem} and weights: imagenet",
                {"name": name, "stem": stem},
            )
        return known_name(name, architectures(), "keras_cv")

    @field_validator("weights")
    @classmethod
    def _published(cls, weights: str | None, info: ValidationInfo) -> str | None:
        name = info.data.get("name")
        if weights == "imagenet" and name is not None and not architectures()[name]["imagenet"]:
            published = [other for other, entry in architectures().items() if entry["imagenet"]]
            raise PydanticCustomError(
                "no_imagenet_weights",
                "keras-cv has no ImageNet weights of {name}; give a weights file, null for random weights, "
                "or one of {published}",
                {"name": name, "published": ", ".join(published)},
            )
        return weights

    @property
    def default_image_size(self) -> int:
        return 224

    def build(self, image_size: int) -> BuiltBackbone:
        entry = architectures()[self.name]
        try:
            model = keras_cv_network(entry["class"], entry["arguments"], image_size, self.name)
        except ValueError as error:
            raise WeightsError(
                f"keras-cv cannot build {self.name} for images of {image_size} px; try a multiple of 32"
            ) from error
        origin = {"source": self.source, "name": self.name, "weights": self.weights or "random"}
        path = self._file(entry["class"])
        if path is not None:
            origin |= {"file": path.name, "sha256": load_weights(model, path, f"keras-cv {self.name}")}
        return BuiltBackbone(model, unchanged, origin | {"preprocessing": "x / 255, inside the network"})

    def _file(self, class_name: str) -> Path | None:
        if self.weights is None:
            return None
        if self.weights == "imagenet":
            return self._fetched(class_name)
        path = Path(self.weights).expanduser()
        return path / "model.weights.h5" if path.is_dir() else path

    def _fetched(self, class_name: str) -> Path:
        import kagglehub
        import keras_cv

        preset = f"{self.name}_imagenet"
        elsewhere = (
            f'import keras_cv; keras_cv.models.{class_name}.from_preset("{preset}")'
            f'.save_weights("{preset}.weights.h5")'
        )
        with fetching(f"keras-cv's ImageNet weights of {self.name}", elsewhere):
            handle = getattr(keras_cv.models, class_name).presets[preset]["kaggle_handle"]
            return Path(kagglehub.model_download(handle.removeprefix("kaggle://"), "model.weights.h5"))
