"""Small models as files, told apart by a number, and what lies in a place."""

from __future__ import annotations

from pathlib import Path

from finetune.recalibration.lineage import Lineage, Parent, write_lineage

FILES = ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001")


def saved_model(number: int):
    """Builds a folder that looks like a SavedModel; every file holds the number."""

    def build(folder: Path) -> None:
        for name in FILES:
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(bytes([number]) * 1000)

    return build


def one_file(number: int, name: str = "model.onnx"):
    def build(folder: Path) -> None:
        folder.mkdir()
        (folder / name).write_bytes(bytes([number]) * 1000)

    return build


def recorded(number: int, made_from: int):
    """A recalibrated version of another one."""

    def build(folder: Path) -> None:
        saved_model(number)(folder)
        parent = Parent(name=str(made_from), hash="0" * 64, version=made_from)
        write_lineage(folder, Lineage(kind="recalibration", parent=parent), {"class_names": ["cat", "dog"]})

    return build


def content(version: Path) -> int:
    """The number of a model; every file must hold it."""
    files = [file for name in FILES if (file := version / name).exists()] or [version / "model.onnx"]
    numbers = {byte for file in files for byte in file.read_bytes()}
    assert len(numbers) == 1
    assert all(len(file.read_bytes()) == 1000 for file in files)
    return numbers.pop()


def tree(place: Path) -> dict[str, bytes]:
    """Everything in a place, hidden or not, by relative name."""
    return {str(f.relative_to(place)): f.read_bytes() for f in sorted(place.rglob("*")) if f.is_file()}
