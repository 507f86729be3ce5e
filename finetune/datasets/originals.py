"""What images are before they are resized: their sizes, and whether they have colour."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median

from PIL import Image

from finetune.datasets.folder_scan import Picture

GREY = ("1", "L", "LA", "I;16", "I")
"""Pillow's modes without colour."""


@dataclass(frozen=True)
class Originals:
    """side: median of the shorter sides in px, and smallest and largest. grey: images of one channel. count: of those
    that were looked at."""

    count: int
    side: int
    smallest: int
    largest: int
    grey: int

    @property
    def words(self) -> str:
        """`28 px at the shorter side, all of them grey`."""
        sizes = f"{self.smallest} px at the shorter side"
        if self.smallest < self.largest:
            sizes = (
                f"{self.smallest} to {self.largest} px at the shorter side, half of them {self.side} or more"
            )
        if not self.grey:
            return sizes
        return f"{sizes}, {'all' if self.grey == self.count else f'{self.grey:,}'} of them grey"


def originals_of(pictures: Sequence[Picture]) -> tuple[Originals | None, tuple[str, ...]]:
    """Opens each file as far as its header. None where none can be opened, and the ids of those that cannot."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        headers = list(pool.map(_header, pictures))
    closed = tuple(sorted(p.id for p, header in zip(pictures, headers, strict=True) if header is None))
    known = [header for header in headers if header is not None]
    if not known:
        return None, closed
    sides = [side for side, _ in known]
    grey = sum(mode in GREY for _, mode in known)
    return Originals(len(known), round(median(sides)), min(sides), max(sides), grey), closed


def of_shape(count: int, height: int, width: int, channels: int) -> Originals:
    """Of images that are all alike."""
    side = min(height, width)
    return Originals(count, side, side, side, count if channels == 1 else 0)


def _header(picture: Picture) -> tuple[int, str] | None:
    """Shorter side in px, and mode."""
    try:
        with Image.open(picture.path) as file:
            return min(file.size), file.mode
    except Exception:  # Pillow raises whatever a damaged file leads to
        return None
