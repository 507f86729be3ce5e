"""What every backbone hands on: a feature extractor, its preprocessing and where its weights come from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from finetune.classifier import Classifier
from finetune.component import Component

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class BuiltBackbone:
    """A feature extractor ready to be joined to a head.

    model: preprocessed images (batch, size, size, 3) -> features (batch, h, w, channels) or
        (batch, channels).
    preprocess: plain Keras operations from RGB values 0..255 to what `model` expects.
    origin: where the weights come from (source, name, file, digest, licence): goes into provenance.json.
    classifier: the head that was trained with the weights, where they hold one.
    """

    model: keras.Model
    preprocess: Callable[[Any], Any]
    origin: Mapping[str, Any] = field(default_factory=dict)
    classifier: Classifier | None = None


class Backbone(Component):
    """Base of every source of backbones."""

    source: str
    """Its name, in one word."""

    @classmethod
    @abstractmethod
    def names(cls) -> tuple[str, ...]:
        """What `name:` may say, for listings; empty where the source has no names."""

    @property
    @abstractmethod
    def default_image_size(self) -> int:
        """Side in px of the images the weights were trained on."""

    @abstractmethod
    def build(self, image_size: int) -> BuiltBackbone:
        """Build the network for square images of `image_size` px and load its weights.

        Raises WeightsError. Needs no network unless published weights are named.
        """
