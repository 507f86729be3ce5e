"""What a folder of pictures looks like from outside: counts, sizes, kinds, files that cannot be opened."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from PIL import Image

from finetune.datasets.folder_scan import Picture, holds_splits, scan_classes, scan_splits
from finetune.errors import DataError


@dataclass(frozen=True)
class FolderLook:
    """counts: pictures by class, of all splits. trained: pictures that a training sees. divided: whether folders say
    which split a picture is in. side: median of the shorter sides in px, and smallest and largest. grey: pictures
    without colour. unreadable: ids of files whose header is damaged. others: files that are no pictures."""

    path: Path
    counts: dict[str, int]
    trained: int
    divided: bool
    side: int
    smallest: int
    largest: int
    grey: int
    unreadable: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def look_at_folder(path: Path) -> FolderLook:
    """Opens every picture as far as its header. Raises DataError with everything that a training would trip over."""
    divided = holds_splits(path)
    scanned = scan_splits(path) if divided else {"train": scan_classes(path, path)}
    problems = [problem for classes in scanned.values() for problem in classes.problems]
    if problems:
        raise DataError(problems)
    names = scanned["train"].names
    pictures = [picture for classes in scanned.values() for picture in classes.pictures]
    headers = _headers(pictures)
    sides = [side for side, _ in headers.values()]
    if not sides:
        raise DataError(f"data.path: none of the {len(pictures)} pictures in {path} can be opened")
    unreadable = tuple(sorted(picture.id for picture in pictures if picture.id not in headers))
    trained = len(scanned["train"].pictures) if divided else round(0.8 * len(pictures))
    return FolderLook(
        path=path,
        counts={name: sum(number in p.classes for p in pictures) for number, name in enumerate(names)},
        trained=trained,
        divided=divided,
        side=round(median(sides)),
        smallest=min(sides),
        largest=max(sides),
        grey=Counter(mode in ("1", "L", "LA", "I;16", "I") for _, mode in headers.values())[True],
        unreadable=unreadable,
        others=tuple(file for classes in scanned.values() for file in classes.others),
    )


def _headers(pictures: Sequence[Picture]) -> dict[str, tuple[int, str]]:
    """Shorter side in px and mode of each picture that can be opened, by id."""

    def header(picture: Picture) -> tuple[int, str] | None:
        try:
            with Image.open(picture.path) as file:
                return min(file.size), file.mode
        except Exception:  # Pillow raises whatever a damaged file leads to
            return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(header, pictures)
        return {picture.id: each for picture, each in zip(pictures, found, strict=True) if each}
