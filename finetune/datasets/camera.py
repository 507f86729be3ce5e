"""A label-preserving change of the camera (kinds after ImageNet-C, Hendrycks & Dietterich 2019, arXiv:1903.12261)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from finetune.component import Component

if TYPE_CHECKING:
    import numpy as np

Kind = Literal["fog", "contrast", "brightness", "noise", "blur", "jpeg", "invert"]


class Shift(Component):
    """What the camera does to every image; the severities are this project's, tuned to images of 28 px.

    `invert` has one severity in effect: it is the losing case, which no recalibration repairs.
    """

    kind: Kind
    severity: int = Field(3, ge=1, le=5)

    def apply(self, images: np.ndarray, ids: Sequence[int | str]) -> np.ndarray:
        """Images uint8 (batch, height, width, 1 or 3) -> changed images of the same shape and dtype.

        What is random about an image is decided by its id and the kind alone: neither its batch-mates,
        nor the order, nor the severity changes it.
        """
        from finetune.datasets.camera_effects import apply_effect

        return apply_effect(self.kind, self.severity, images, ids)

    def __str__(self) -> str:
        return f"{self.kind} {self.severity}"
