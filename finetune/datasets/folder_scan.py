"""What lies in a folder of pictures: its layout, its classes and its files. No picture is opened here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from finetune.datasets.base import SPLIT_NAMES
from finetune.datasets.picture import SUFFIXES
from finetune.errors import DataError

# "val" and "valid" are no names of ours, but who uses them means splits and not classes
SPLIT_HINTS = {*SPLIT_NAMES, "val", "valid"} - {"train"}


@dataclass(frozen=True)
class Picture:
    """A picture file. `id` is its path below the data set's folder; `label` is the index of its class, or, where it may
    show several, 0 or 1 for each class."""

    path: Path
    id: str
    label: int | tuple[int, ...]

    @property
    def classes(self) -> tuple[int, ...]:
        """The indices of all that it shows."""
        if isinstance(self.label, int):
            return (self.label,)
        return tuple(number for number, shown in enumerate(self.label) if shown)


@dataclass(frozen=True)
class Classes:
    """One folder a class. `pictures` are sorted by class and path; `others` are files that are no pictures."""

    names: tuple[str, ...]
    pictures: tuple[Picture, ...]
    others: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def holds_splits(root: Path) -> bool:
    """Whether the folder has train/ beside other splits, and not one folder a class. Raises DataError without it."""
    if not root.is_dir():
        raise DataError(f"data.path: there is no folder {root}")
    names = {folder.name for folder in folders_in(root)}
    return "train" in names and (len(names) == 1 or bool(names & SPLIT_HINTS))


def scan_classes(folder: Path, root: Path) -> Classes:
    """The classes of one folder, by name; what is wrong with them is in `problems`."""
    names = tuple(sorted(sub.name for sub in folders_in(folder)))
    problems = []
    if not names:
        problems.append(f"data.path: {folder} has no class folder; one folder a class is expected")
    elif len(names) == 1:
        problems.append(f"data.path: {folder} has one class folder only, {names[0]}; at least two are needed")
    pictures: list[Picture] = []
    others: list[str] = []
    for label, name in enumerate(names):
        files = sorted(files_in(folder / name))
        found = [file for file in files if file.suffix.lower() in SUFFIXES]
        others += [file.relative_to(root).as_posix() for file in files if file not in set(found)]
        pictures += [Picture(file, file.relative_to(root).as_posix(), label) for file in found]
        if not found:
            problems.append(
                f"data.path: class folder {folder / name} has no image ({', '.join(sorted(SUFFIXES))})"
            )
    return Classes(names, tuple(pictures), tuple(others), tuple(problems))


def scan_splits(root: Path) -> dict[str, Classes]:
    """train, validation, test and, where there is one, calibration. Raises DataError with every problem."""
    found = sorted(folder.name for folder in folders_in(root))
    problems = [
        f"data.path: no {name} data: {root} has the folders {', '.join(found)}; add {root / name}, "
        "or put one folder a class there and let fractions divide them"
        for name in ("validation", "test")
        if name not in found
    ]
    scanned = {name: scan_classes(root / name, root) for name in SPLIT_NAMES if name in found}
    for name, classes in scanned.items():
        problems += classes.problems
        problems += differences(root, name, set(classes.names), set(scanned["train"].names))
    if problems:
        raise DataError(problems)
    return scanned


def differences(root: Path, split: str, here: set[str], in_train: set[str]) -> Iterator[str]:
    for name in sorted(in_train - here):
        yield f"data.path: {root / split} has no class folder {name}, which {root / 'train'} has"
    for name in sorted(here - in_train):
        yield f"data.path: {root / split} has the class folder {name}, which {root / 'train'} has not"


def folders_in(folder: Path) -> Iterator[Path]:
    return (sub for sub in folder.iterdir() if sub.is_dir() and not sub.name.startswith((".", "__")))


def files_in(folder: Path) -> Iterator[Path]:
    """All files below, hidden ones left out."""
    return (file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
