"""Fine-tune pretrained vision networks with the BatchNorm decision explicit, proven and repairable.

import finetune

finetune.fine_tune("recipe.yaml", ["seed=1"]).test.metrics["accuracy"]
finetune.recalibrate("models/shirts", finetune.ImageSource(folder="today"))
finetune.drift("models/shirts", finetune.ImageSource(folder="today")).overall
finetune.apply(finetune.Freeze(), model, images)    # in a training of your own
"""

from __future__ import annotations

import importlib
from typing import Any

HOMES = {
    "recalibrate": "finetune.recalibration_run",
    "drift": "finetune.drift_run",
    "ImageSource": "finetune.recalibration.settings",
    "Settings": "finetune.recalibration.settings",
    "fine_tune": "finetune.fine_tuning",
    "save_arrays": "finetune.datasets.array_file",
    "apply": "finetune.own_loop",
    "RunningStatisticsShift": "finetune.own_loop",
    **dict.fromkeys(("Freeze", "Recalibrate", "Retrain", "Affine", "Statistics"), "finetune.policies"),
    "history": "finetune.recalibration.history",
    "rollback": "finetune.recalibration.history",
}
"""Where the names of the Python interface are at home: imported when asked for, since TensorFlow takes seconds."""

__all__ = [
    "Affine",
    "Freeze",
    "ImageSource",
    "Recalibrate",
    "Retrain",
    "RunningStatisticsShift",
    "Settings",
    "Statistics",
    "apply",
    "drift",
    "fine_tune",
    "history",
    "recalibrate",
    "rollback",
    "save_arrays",
]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'finetune' has no attribute {name!r}")
    return getattr(importlib.import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *HOMES})
