"""What a model was made from: recipe, data, weights and versions; written beside it as provenance.json."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from finetune.batchnorm.measure import Measurement
from finetune.datasets.base import Split, Splits
from finetune.keras_backend import on_tensorflow
from finetune.layer_packages import LATE, layer_packages
from finetune.policies.base import Finish

PACKAGES = ("finetune", "tensorflow", "keras", "keras-cv", "tensorflow-datasets", "mlflow", "numpy")


def provenance(
    recipe: Mapping[str, Any],
    origin: Mapping[str, Any],
    splits: Splits,
    start: Measurement | None,
    finish: Finish,
    reference_images: int,
) -> dict[str, Any]:
    """Everything but what would tell about the person or the machine; plain values, ready for JSON."""
    return {
        "format": 1,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "recipe": recipe,
        "weights": dict(origin),
        "data": {
            "digest": splits.digest,
            "licence": splits.licence,
            "image_size": splits.image_size,
            "class_names": list(splits.class_names),
            "splits": describe_splits(splits),
            "counts": {split.name: split.count for split in four(splits)},
        },
        "running_statistics": {
            "measured_before_training": _measured(start),
            "measured_after_training": _measured(finish.measurement if finish.kept else None),
            "reference_images": reference_images,
        },
        "keras_backend": keras.backend.backend(),
        "versions": versions(),
    }


def describe_splits(splits: Splits) -> dict[str, str]:
    """Each split in words with its number of images."""
    return {split.name: f"{split.description} ({split.count} images)" for split in four(splits)}


def four(splits: Splits) -> tuple[Split, ...]:
    return (splits.train, splits.validation, splits.test, splits.calibration)


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide what a model computes."""
    packages = PACKAGES if on_tensorflow() else (*PACKAGES, keras.backend.backend())
    return {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in packages}}


def requirements(model: Path) -> list[str]:
    """What loading the .keras file `model` takes, pinned; keras-cv for backbones made of its own layers."""
    found = versions()
    always = [f"{package}=={found[package]}" for package in ("tensorflow", "keras", "keras-cv", "numpy")]
    return always + [
        f"{LATE[module]}=={importlib.metadata.version(LATE[module])}" for module in layer_packages(model)
    ]


def _measured(measurement: Measurement | None) -> dict[str, float] | None:
    if measurement is None:
        return None
    return {
        "images": measurement.images,
        "residual": measurement.residual,
        "prior": measurement.prior,
    }
