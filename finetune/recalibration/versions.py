"""Numbered versions in a folder: where they lie and which one is served.

A place is a folder that holds its versions in folders named by whole numbers, `place/1`, `place/2`, ...: the layout
of TF Serving (a SavedModel is the version folder) and of Triton (`place/1/model.onnx`), which both serve the
highest number. Single files have it too: what belongs to a model, as external data or reference statistics, can
only appear together with it when it lies in one folder.
"""

from __future__ import annotations

from pathlib import Path

from finetune.errors import OutputError

MODEL_FILES = (".keras", ".h5", ".onnx")
HIGHEST = 2**63 - 1
"""TF Serving keeps version numbers in 64 bits."""


def numbers(place: Path) -> list[int]:
    """The numbers of the versions in a place, ascending; empty where there is no such folder."""
    if not place.is_dir():
        return []
    return sorted(int(entry.name) for entry in place.iterdir() if is_number(entry.name) and entry.is_dir())


def newest(place: Path) -> Path | None:
    """The version that is served: the one with the highest number."""
    found = numbers(place)
    return version_folder(place, found[-1]) if found else None


def version_folder(place: Path, number: int) -> Path:
    """`place/<number>`, also where it is written with leading zeros."""
    named = (entry for entry in place.iterdir() if is_number(entry.name) and int(entry.name) == number)
    return min(named, default=place / str(number))


def place_of(model: Path) -> Path | None:
    """The place that a model lies in as a version: `m` for `m/`, `m/3` and `m/3/model.onnx`; None outside of one."""
    if numbers(model):
        return model
    version = model.parent if model.suffix in MODEL_FILES else model
    return version.parent if is_number(version.name) else None


def model_in(version: Path) -> Path:
    """What is to be opened in a version: the folder itself for a SavedModel, else its one model file.

    Raises OutputError where it holds no model, or several.
    """
    if is_saved_model(version):
        return version
    files = sorted(file for file in version.iterdir() if file.suffix in MODEL_FILES)
    if len(files) == 1:
        return files[0]
    found = ", ".join(file.name for file in files) or "none"
    raise OutputError(
        f"{version}: expected a SavedModel or one model file ({', '.join(MODEL_FILES)}), found {found}"
    )


def is_saved_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt"))


def is_number(name: str) -> bool:
    """Whether a server takes a folder of that name for a version."""
    return name.isascii() and name.isdecimal() and int(name) <= HIGHEST
