"""The sources of backbones: one file each, told apart by `source:`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from finetune.backbones.base import Backbone, BuiltBackbone
from finetune.backbones.bundled_weights import Bundled
from finetune.backbones.efficientnet_lite import EfficientNetLite
from finetune.backbones.keras_applications import KerasApplications
from finetune.backbones.keras_cv import KerasCV
from finetune.backbones.saved import Saved
from finetune.classifier import Classifier

BACKBONES: tuple[type[Backbone], ...] = (Bundled, EfficientNetLite, KerasCV, KerasApplications, Saved)

AnyBackbone = Annotated[
    Bundled | EfficientNetLite | KerasCV | KerasApplications | Saved, Field(discriminator="source")
]

__all__ = [
    "BACKBONES",
    "AnyBackbone",
    "Backbone",
    "BuiltBackbone",
    "Bundled",
    "Classifier",
    "EfficientNetLite",
    "KerasApplications",
    "KerasCV",
    "Saved",
]
