"""Which pictures lie below a folder, and of which class they are where its folders say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.datasets.folder_check import listed
from finetune.datasets.folder_scan import Picture, files_in
from finetune.datasets.picture import SUFFIXES
from finetune.errors import DataError

UNLABELLED = -1


@dataclass(frozen=True)
class PictureList:
    """pictures: sorted by path. class_names: None where they have no labels, which are then UNLABELLED."""

    pictures: tuple[Picture, ...]
    class_names: tuple[str, ...] | None
    notes: tuple[str, ...]


def find_pictures(folder: Path, labelled: bool, class_names: Sequence[str] | None) -> PictureList:
    """Every file below whose name is that of a picture. Raises DataError with every problem found."""
    if not folder.is_dir():
        raise DataError(
            f"{folder}: expected a folder of pictures, found {'a file' if folder.exists() else 'nothing'}"
        )
    files = sorted(files_in(folder))
    found = [file for file in files if file.suffix.lower() in SUFFIXES]
    others = [file.relative_to(folder).as_posix() for file in files if file.suffix.lower() not in SUFFIXES]
    if not found:
        raise DataError(f"{folder}: has no image ({', '.join(sorted(SUFFIXES))})")
    notes = (
        (f"{len(others)} files left out, because their names are not those of images: {listed(others)}",)
        if others
        else ()
    )
    ids = [file.relative_to(folder).as_posix() for file in found]
    names = _classes(folder, ids, class_names) if labelled else None
    pictures = tuple(
        Picture(file, name, names.index(_class_of(name)) if names else UNLABELLED)
        for file, name in zip(found, ids, strict=True)
    )
    return PictureList(pictures, names, notes)


def _classes(folder: Path, ids: Sequence[str], known: Sequence[str] | None) -> tuple[str, ...]:
    loose = [name for name in ids if "/" not in name]
    present = sorted({_class_of(name) for name in ids if "/" in name})
    problems = []
    if loose:
        problems.append(f"{folder}: expected every picture in the folder of its class, found {listed(loose)}")
    unknown = [name for name in present if known is not None and name not in known]
    if unknown and known is not None:
        problems.append(
            f"{folder}: the model knows no class {', '.join(unknown)}; it knows {', '.join(known)}"
        )
    if problems:
        raise DataError(problems)
    return tuple(present if known is None else known)


def _class_of(name: str) -> str:
    return name.split("/")[0]
