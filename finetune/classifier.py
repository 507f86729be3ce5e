"""The classification layer that came with pretrained weights: handed from a backbone to the head that keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Classifier:
    """The dense classification layer that came with the pretrained weights.

    kernel: (features, classes); bias: (classes,). class_names is empty where nothing names them.
    """

    kernel: np.ndarray
    bias: np.ndarray
    class_names: tuple[str, ...]
