"""Does the order of a calibration set mislead statistics that are measured batch by batch?

Under `one_pass` every site normalises with its batch: batches that are too small, or of one class each, as in
data sorted by class, normalise away what tells the classes apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from finetune.batchnorm.moments import PopulationMoments

FEW = 64
"""Images a batch below which the moments of a batch are a poor stand-in for those of the set."""

CELLS = 4
"""An image is looked at as so many cells each way, with their mean brightness by channel."""

SORTED = 3.0
"""Variance between batches over what chance gives: 1 for shuffled images, whatever they show."""


class OrderWatch:
    """Passes batches on and remembers how they differ."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches
        self.parts: list[PopulationMoments] = []

    def __iter__(self) -> Iterator[Any]:
        self.parts = []
        for images in self.batches:
            cells = _cells(np.asarray(ops.convert_to_numpy(images), np.float64))
            self.parts.append(PopulationMoments.of_batch(len(cells), cells.mean(0), cells.var(0)))
            yield images

    def warnings(self) -> list[str]:
        """What the person should know about statistics that were measured in one pass over these batches."""
        largest = int(max((part.count for part in self.parts), default=0))
        said = []
        if 0 < largest < FEW:
            said.append(
                f"one_pass measured in batches of {largest} images; from the second site on it is off with fewer "
                f"than {FEW}: use method: layerwise, which does not depend on the batch, or larger batches"
            )
        apart = between_batches(self.parts)
        if apart > SORTED:
            said.append(
                f"the images look sorted: batches differ {apart:.1f} times as much as chance gives; one_pass then "
                "normalises away what differs: shuffle them, or use method: layerwise, which needs no order"
            )
        return said


def between_batches(parts: list[PopulationMoments]) -> float:
    """The F ratio of a one-way analysis of variance, batches against images, as the mean over all values.

    1 in expectation where images are in random order; 0 where there are too few of either to tell.
    """
    whole = PopulationMoments.pool(parts) if parts else None
    if whole is None or len(parts) < 2 or whole.count <= 2 * len(parts):
        return 0.0
    within = np.sum([part.m2 for part in parts], axis=0)
    known = within > 0
    between = (whole.m2 - within)[known] / (len(parts) - 1)
    chance = within[known] / (whole.count - len(parts))
    return float(np.mean(between / chance)) if known.any() else 0.0


def _cells(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """(batch, values): images (batch, height, width, channels) as coarse mosaics, anything else as it is."""
    if images.ndim != 4 or min(images.shape[1:3]) < CELLS:
        return images.reshape(len(images), -1)
    height, width = (side - side % CELLS for side in images.shape[1:3])
    blocks = images[:, :height, :width].reshape(
        len(images), CELLS, height // CELLS, CELLS, width // CELLS, images.shape[3]
    )
    return blocks.mean((2, 4)).reshape(len(images), -1)
