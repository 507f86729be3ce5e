"""One reading of a split: how many images of each class, what their pixels are like, and which are the same image."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune.datasets.base import Split
from finetune.datasets.batches import class_counts, evaluation_batches

BATCH = 128

Label = int | tuple[int, ...]


@dataclass(frozen=True)
class Reading:
    """counts: images of each class. mean, spread: of the pixels by channel (R, G, B), 0..255. marks: of every image, a
    hash of its pixels at the size of the training; labels: its class, or 0 and 1 for each class; both in the split's
    order."""

    name: str
    description: str
    counts: tuple[int, ...]
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    marks: tuple[bytes, ...]
    labels: tuple[Label, ...]

    @property
    def total(self) -> int:
        return len(self.labels)


def read_split(split: Split, classes: int) -> Reading:
    """Every image once; moments in float64."""
    marks: list[bytes] = []
    labels: list[Any] = []
    pixels, total, squares = 0, np.zeros(3), np.zeros(3)
    for images, numbers in evaluation_batches(split, BATCH).as_numpy_iterator():
        marks += [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]
        labels += numbers.tolist()
        values = images.reshape(-1, 3).astype(np.float64)
        pixels += len(values)
        total += values.sum(0)
        squares += (values**2).sum(0)
    mean = total / max(pixels, 1)
    spread = np.sqrt(np.maximum(squares / max(pixels, 1) - mean**2, 0.0))
    counts = class_counts(np.asarray(labels, np.int64), classes)
    return Reading(
        split.name,
        split.description,
        tuple(counts.tolist()),
        tuple(mean.tolist()),
        tuple(spread.tolist()),
        tuple(marks),
        tuple(tuple(label) if isinstance(label, list) else label for label in labels),
    )
