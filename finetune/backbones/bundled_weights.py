"""The backbone that ships with the package: a quarter-width ResNet-50 (He et al. 2015, arXiv:1512.03385).

scripts/make_bundled_backbone.py trained it; resnet50_quarter.json beside the weights says on what and how well.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from finetune.backbones.base import Backbone, BuiltBackbone
from finetune.backbones.keras_cv import keras_cv_network
from finetune.backbones.scaling import unchanged
from finetune.backbones.weights_file import load_weights
from finetune.classifier import Classifier

if TYPE_CHECKING:
    import keras

FOLDER = Path(__file__).with_name("bundled")


def provenance() -> dict[str, Any]:
    """What the script wrote beside the weights: data, accuracy, command, versions, licence, class names."""
    record: dict[str, Any] = json.loads((FOLDER / "resnet50_quarter.json").read_text("utf-8"))
    return record


def resnet50_quarter(classes: int, side: int | None = None) -> keras.Model:
    """The network as it was trained: RGB 0..255 (batch, side, side, 3) -> probabilities (batch, classes).

    The backbone (53 BN sites) is its layer "resnet50_quarter", the dense classifier its layer "classes".
    """
    import keras

    backbone = keras_cv_network(
        "ResNetBackbone",
        {
            "stackwise_filters": [16, 32, 64, 128],
            "stackwise_blocks": [3, 4, 6, 3],
            "stackwise_strides": [1, 2, 2, 2],
            "block_type": "block",
        },
        side,
        "resnet50_quarter",
    )
    images = keras.Input((side, side, 3), name="image")
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(backbone(images))
    return keras.Model(images, keras.layers.Dense(classes, activation="softmax", name="classes")(pooled))


class Bundled(Backbone):
    """The backbone in the package: needs no network and no file."""

    source: Literal["bundled"] = "bundled"
    name: Literal["resnet50_quarter"] = "resnet50_quarter"

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return ("resnet50_quarter",)

    @property
    def default_image_size(self) -> int:
        size: int = provenance()["image_size"]
        return size

    def build(self, image_size: int) -> BuiltBackbone:
        record = provenance()
        class_names = tuple(record["class_names"])
        network = resnet50_quarter(len(class_names), image_size)
        load_weights(network, FOLDER / record["file"], f"the bundled {self.name}")
        kernel, bias = network.get_layer("classes").get_weights()
        kept = ("name", "architecture", "data", "licence", "sha256", "test_accuracy")
        return BuiltBackbone(
            network.get_layer(self.name),
            unchanged,
            {"source": self.source} | {key: record[key] for key in kept},
            Classifier(kernel, bias, class_names),
        )
