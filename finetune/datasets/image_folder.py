"""Pictures in folders: one folder a class, divided by folder or by fraction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from finetune.datasets.picture_files import Fractions, PictureFiles

if TYPE_CHECKING:
    from finetune.datasets.folder_scan import Picture


class ImageFolder(PictureFiles):
    """Either path/train, path/validation, path/test (and path/calibration), each with one folder a class, or
    one folder a class under `path`, which `fractions` divide.

    Any kind of picture is read as RGB; transparency lies over white. The licence is not known.
    """

    source: Literal["image_folder"] = "image_folder"

    def _find(self, seed: int) -> tuple[tuple[str, ...], dict[str, list[Picture]], list[str]]:
        """Class names, the pictures of each split, and what to say about them."""
        from finetune.datasets.folder_scan import holds_splits, scan_classes, scan_splits
        from finetune.datasets.folder_split import divide
        from finetune.errors import DataError

        root = Path(self.path).expanduser()
        if holds_splits(root):
            if self.fractions is not None:
                raise DataError(f"data.fractions: {root} is divided by folders already; leave fractions out")
            scanned = scan_splits(root)
            others = [file for classes in scanned.values() for file in classes.others]
            found = {name: list(classes.pictures) for name, classes in scanned.items()}
            return scanned["train"].names, found, ignored(others)
        classes = scan_classes(root, root)
        if classes.problems:
            raise DataError(classes.problems)
        shares = (self.fractions or Fractions()).model_dump()
        return classes.names, divide(classes.pictures, classes.names, shares, seed), ignored(classes.others)


def ignored(others: Sequence[str]) -> list[str]:
    from finetune.datasets.folder_check import listed

    return [f"left out, because their names are not those of images: {listed(others)}"] if others else []
