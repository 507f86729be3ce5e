"""Write `finetune/backbones/facts.json`: what `finetune list backbones` says of every architecture that it can build.

Each is built with random weights at its own image size, and its BN sites are found as a run finds them. The presets of
keras-hub describe themselves on a server only: of these stands what the package says of their parameters.

    uv run --extra hub python scripts/measure_backbones.py
"""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from finetune.backbones import Backbone, Bundled, EfficientNetLite, KerasApplications, KerasCV
from finetune.backbones.keras_applications import ARCHITECTURES
from finetune.backbones.keras_cv import architectures
from finetune.batchnorm.sites import find_sites

OUT = Path(__file__).resolve().parents[1] / "finetune" / "backbones" / "facts.json"


def main() -> None:
    facts = {
        "bundled": {
            name: measured(Bundled(), "x / 255, inside", "in the package") for name in Bundled.names()
        },
        "efficientnet_lite": {
            name: measured(
                EfficientNetLite(name=name, weights=None), "(x - 127) / 128", "extra efficientnet-lite"
            )
            for name in EfficientNetLite.names()
        },
        "keras_cv": {
            name: measured(
                KerasCV(name=name, weights=None),
                "x / 255, inside",
                "imagenet" if architectures()[name]["imagenet"] else "a file",
            )
            for name in KerasCV.names()
        },
        "keras_applications": {
            name: measured(
                KerasApplications(name=name, weights=None),
                "inside" if ARCHITECTURES[name].scale == "none" else ARCHITECTURES[name].scale,
                "imagenet",
            )
            for name in KerasApplications.names()
        },
        "keras_hub": keras_hub_presets(),
    }
    OUT.write_text(json.dumps(facts, indent=1, sort_keys=False) + "\n", "utf-8")


def measured(backbone: Backbone, preprocessing: str, weights: str) -> dict[str, Any]:
    keras.backend.clear_session()
    gc.collect()
    side = backbone.default_image_size
    model = backbone.build(side).model
    sites = find_sites(model, np.zeros((1, side, side, 3), np.float32))
    row = {
        "sites": len(sites),
        "channels": sum(site.channels for site in sites),
        "momentum": sorted({site.momentum for site in sites}),
        "epsilon": sorted({site.epsilon for site in sites}),
        "parameters": int(sum(np.prod(v.shape) for v in model.weights if "seed_generator" not in v.path)),
        "image_size": side,
        "preprocessing": preprocessing,
        "weights": weights,
    }
    print(getattr(backbone, "name", "bundled"), row, flush=True)
    return row


def keras_hub_presets() -> dict[str, Any]:
    import keras_hub

    from finetune.backbones.keras_hub import presets

    return {
        preset: {
            "sites": None,
            "channels": None,
            "momentum": None,
            "epsilon": None,
            "parameters": getattr(keras_hub.models, f"{about['family']}Backbone").presets[preset]["metadata"][
                "params"
            ],
            "image_size": about["image_size"],
            "preprocessing": "its image converter",
            "weights": "the preset",
        }
        for preset, about in presets().items()
    }


if __name__ == "__main__":
    main()
