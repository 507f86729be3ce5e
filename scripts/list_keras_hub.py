"""Write `finetune/backbones/keras_hub_presets.json`: the image classifiers of keras-hub with their sides in px.

Recipes are checked without importing keras-hub, which takes seconds. Where a preset's description names no size it was
trained on images of 224 px.

    uv run --extra hub python scripts/list_keras_hub.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import keras_hub

OUT = Path(__file__).resolve().parents[1] / "finetune" / "backbones" / "keras_hub_presets.json"
FAMILIES = (
    "CSPNet",
    "DeiT",
    "DenseNet",
    "EfficientNet",
    "HGNetV2",
    "MobileNet",
    "ResNet",
    "SwinTransformer",
    "VGG",
    "ViT",
    "Xception",
)
SIZES = (
    r"(\d{3})\s*x\s*\d{3}",
    r"(\d{3}) by \d{3}",
    r"_r(\d{3})_",
    r"patch\d+_(\d{3})",
    r"window\d+_(\d{3})",
)


def image_size(preset: str, description: str) -> int:
    words = f"{description} {preset}"
    return next((int(found[1]) for size in SIZES if (found := re.search(size, words))), 224)


def main() -> None:
    presets = {
        preset: {"family": family, "image_size": image_size(preset, about["metadata"]["description"])}
        for family in FAMILIES
        for preset, about in getattr(keras_hub.models, f"{family}Backbone").presets.items()
    }
    OUT.write_text(
        json.dumps({"keras_hub": keras_hub.__version__, "presets": presets}, indent=1) + "\n", "utf-8"
    )
    print(f"{len(presets)} presets of keras-hub {keras_hub.__version__}: {OUT}")


if __name__ == "__main__":
    main()
