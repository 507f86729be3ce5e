"""The sources of backbones: one file each, told apart by `source:`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from finetune.backbones.base import Backbone, BuiltBackbone
from finetune.backbones.bundled_weights import Bundled
from finetune.backbones.efficientnet_lite import EfficientNetLite
from finetune.backbones.function import Function
from finetune.backbones.keras_applications import KerasApplications
from finetune.backbones.keras_cv import KerasCV
from finetune.backbones.keras_hub import KerasHub
from finetune.backbones.saved import Saved
from finetune.classifier import Classifier
from finetune.contributed import with_contributed

OWN: tuple[type[Backbone], ...] = (
    Bundled,
    EfficientNetLite,
    KerasCV,
    KerasApplications,
    KerasHub,
    Saved,
    Function,
)
BACKBONES = with_contributed(OWN, "finetune.backbones", Backbone, "source")  # type: ignore[type-abstract]

if TYPE_CHECKING:
    AnyBackbone = Backbone
else:
    AnyBackbone = Annotated[Union[BACKBONES], Field(discriminator="source")]  # noqa: UP007 - of however many there are

__all__ = [
    "BACKBONES",
    "AnyBackbone",
    "Backbone",
    "BuiltBackbone",
    "Bundled",
    "Classifier",
    "EfficientNetLite",
    "Function",
    "KerasApplications",
    "KerasCV",
    "KerasHub",
    "Saved",
]
