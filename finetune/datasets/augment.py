"""One augmentation of the training images: a keras-cv layer that leaves every image its own label."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from finetune.component import Component

# Left out: layers that mix images (MixUp, CutMix), change the size, draw nothing, or cannot be seeded (AugMix).
Layer = Literal[
    "RandAugment",
    "RandomBrightness",
    "RandomColorJitter",
    "RandomContrast",
    "RandomCropAndResize",
    "RandomFlip",
    "RandomGaussianBlur",
    "RandomHue",
    "RandomRotation",
    "RandomSaturation",
    "RandomSharpness",
    "RandomShear",
    "RandomTranslation",
    "RandomZoom",
]


class Augmentation(Component):
    """A layer by its keras-cv name and its options by their keras-cv names.

    Not among the options, because the recipe has said them already: the seed, the range of the values
    (0..255) and the size of the images.
    """

    layer: Layer
    options: dict[str, Any] = Field(default_factory=dict, description="arguments of the keras-cv layer")
