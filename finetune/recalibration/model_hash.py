"""A hash of a model as it lies on disk: of its files' names and contents, whatever their order, dates and owners."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

PROVENANCE = "provenance.json"
CHUNK = 1 << 20


def model_hash(model: Path) -> str:
    """SHA-256, in hexadecimal, of a file, or of the relative names and contents of all files in a folder.

    Provenance is left out, being about the model: a version that was rolled back to keeps its hash.
    """
    if model.is_file():
        return _content(model)
    tree = hashlib.sha256()
    for name, file in sorted(_files(model)):
        # names cannot hold a zero byte, and a digest has a fixed length: no two trees are written alike
        tree.update(name.encode("utf-8", "surrogateescape") + b"\0" + bytes.fromhex(_content(file)))
    return tree.hexdigest()


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for file in folder.rglob("*"):
        if file.is_file() and file.name != PROVENANCE:
            yield file.relative_to(folder).as_posix(), file


def _content(file: Path) -> str:
    content = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            content.update(chunk)
    return content.hexdigest()
