"""What a folder of pictures looks like from outside: counts, sizes, kinds, files that cannot be opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finetune.datasets.folder_scan import holds_splits, scan_classes, scan_splits
from finetune.datasets.originals import originals_of
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
    originals, unreadable = originals_of(pictures)
    if originals is None:
        raise DataError(f"data.path: none of the {len(pictures)} pictures in {path} can be opened")
    trained = len(scanned["train"].pictures) if divided else round(0.8 * len(pictures))
    return FolderLook(
        path=path,
        counts={name: sum(number in p.classes for p in pictures) for number, name in enumerate(names)},
        trained=trained,
        divided=divided,
        side=originals.side,
        smallest=originals.smallest,
        largest=originals.largest,
        grey=originals.grey,
        unreadable=unreadable,
        others=tuple(file for classes in scanned.values() for file in classes.others),
    )
