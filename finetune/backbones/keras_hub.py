"""Backbones of keras-hub, the maintained successor of keras-cv (extra `hub`; Apache-2.0, The KerasHub Authors).

A preset is a network, its weights and its image converter, out of which come the scale and the offset that the pixels
get; a network keeps its own momentum and epsilon (ResNet: .9 and 1e-5, in keras-cv .99 and 1.001e-5). Pictures are
brought to their size by the dataset, not by the converter.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from finetune.backbones.base import Backbone, BuiltBackbone
from finetune.backbones.known_names import known_name
from finetune.backbones.published import fetching
from finetune.backbones.scaling import Scale, rescaled, scaling
from finetune.backbones.weights_file import digest
from finetune.errors import WeightsError, first_line

if TYPE_CHECKING:
    import keras

SIZE_IN_DOUBT = 224
"""Side in px where a preset names none."""

WITH_A_CLASS_TOKEN = {"ViTBackbone", "DeiTBackbone"}


@cache
def presets() -> dict[str, Any]:
    """The image classifiers by preset: family and side in px (scripts/list_keras_hub.py)."""
    entries: dict[str, Any] = json.loads(
        Path(__file__).with_name("keras_hub_presets.json").read_text("utf-8")
    )["presets"]
    return entries


class KerasHub(Backbone):
    """A preset of keras-hub, by its name or as a folder that `save_to_preset` wrote (extra `hub`)."""

    source: Literal["keras_hub"] = "keras_hub"
    name: str = Field(
        min_length=1,
        description="a preset, fetched once where there is a network, or the path of a preset folder",
    )
    weights: Literal["pretrained"] | None = Field(
        "pretrained", description="pretrained: those of the preset; null: random"
    )
    scale: Scale | None = Field(
        None, description="what the network expects of RGB 0..255; null: as the preset's image converter says"
    )

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(presets())

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        return name if _is_path(name) else known_name(name, presets(), "keras_hub")

    @property
    def default_image_size(self) -> int:
        """Read without keras-hub. Raises WeightsError where the folder is none of a preset."""
        if not _is_path(self.name):
            return int(presets()[self.name]["image_size"])
        _config(self._folder, "config.json")
        return _side(self._folder) or SIZE_IN_DOUBT

    @property
    def _folder(self) -> Path:
        return Path(self.name).expanduser()

    def build(self, image_size: int) -> BuiltBackbone:
        origin = {"source": self.source, "name": self.name, "weights": self.weights or "random"}
        if not _is_path(self.name):
            _import_keras_hub()
            elsewhere = (
                f'import keras_hub; keras_hub.models.ImageClassifier.from_preset("{self.name}")'
                f'.save_to_preset("{self.name}")'
            )
            with fetching(
                f"keras-hub's preset {self.name}", elsewhere, f"give the folder as `name: ./{self.name}`"
            ):
                network = self._network(self.name, image_size)
                return BuiltBackbone(_features(network), self._preprocessing(self.name), origin)
        folder = self._folder
        _config(folder, "config.json")
        _import_keras_hub()
        weights = folder / "model.weights.h5"
        if self.weights is not None:
            if not weights.is_file():
                raise WeightsError(
                    f"{folder}: holds no model.weights.h5; save it with its weights, or weights: null"
                )
            origin |= {"file": weights.name, "sha256": digest(weights)}
        try:
            network = self._network(str(folder), image_size)
        # a folder may be damaged in any of its parts, and each reader inside Keras raises its own kind
        except Exception as error:
            reason = first_line(error)
            raise WeightsError(
                f"{folder}: keras-hub cannot build it for images of {image_size} px: {reason}"
            ) from error
        return BuiltBackbone(_features(network), self._preprocessing(str(folder)), origin)

    def _network(self, preset: str, image_size: int) -> keras.Model:
        import keras_hub

        return keras_hub.models.Backbone.from_preset(
            preset, load_weights=self.weights is not None, image_shape=(image_size, image_size, 3)
        )

    def _preprocessing(self, preset: str) -> Callable[[Any], Any]:
        import keras_hub

        if self.scale is not None:
            return scaling(self.scale)
        try:
            converter = keras_hub.layers.ImageConverter.from_preset(preset)
        except (OSError, ValueError) as error:
            raise WeightsError(
                f"{preset}: holds no image converter, so that nothing says which scale its pixels have; write the "
                "folder with ImageClassifier.save_to_preset, or set backbone.scale"
            ) from error
        slope = 1.0 if converter.scale is None else converter.scale
        offset = 0.0 if converter.offset is None else converter.offset
        return lambda images: rescaled(images, slope, offset)


def _is_path(name: str) -> bool:
    return "/" in name or name.startswith("~") or Path(name).is_dir()


def _import_keras_hub() -> None:
    try:
        import keras_hub  # noqa: F401
    except ImportError as error:
        raise WeightsError(
            "keras-hub is not installed: pip install 'finetune[hub]', or take source: keras_cv"
        ) from error


def _features(network: keras.Model) -> keras.Model:
    """A plain functional model where the network is convolutional: keras-hub's own class reloads only with keras-hub.

    Transformers, whose layers do not come apart, stay whole; their features are the class token, or the mean of all.
    """
    import keras

    # the outputs of all stages in some families; .outputs has them in the order of their names
    last = [*network.output.values()][-1] if isinstance(network.output, dict) else network.output
    if len(last.shape) == 4:
        return keras.Model(network.inputs[0], last, name=network.name)
    images = keras.Input(network.inputs[0].shape[1:], name="preprocessed")
    tokens = network(images)
    pooled = (
        tokens[:, 0]
        if type(network).__name__ in WITH_A_CLASS_TOKEN
        else keras.layers.GlobalAveragePooling1D(name="tokens")(tokens)
    )
    return keras.Model(images, pooled, name=f"{network.name}_features")


def _config(folder: Path, name: str) -> Any:
    try:
        return json.loads((folder / name).read_text("utf-8"))
    except OSError as error:
        raise WeightsError(
            f"{folder}: holds no {name}; expected a folder that keras-hub's save_to_preset wrote"
        ) from error
    except ValueError as error:
        raise WeightsError(f"{folder / name}: damaged ({error}); write the preset again") from error


def _side(folder: Path) -> int | None:
    """Side in px of what the image converter makes, or of what the network takes."""
    if (folder / "image_converter.json").is_file():
        size = _config(folder, "image_converter.json").get("config", {}).get("image_size")
        if isinstance(size, list) and size and isinstance(size[0], int):
            return size[0]
    shape = _config(folder, "config.json").get("config", {}).get("image_shape")
    return shape[0] if isinstance(shape, list) and shape and isinstance(shape[0], int) else None
