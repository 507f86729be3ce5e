"""The file of a whole Keras model: HDF5, or a zip archive with HDF5 inside, of which nothing is extracted by name."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path, PurePosixPath

from finetune.errors import ModelError

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
ZIP, HDF5 = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"
INFLATION, FREE = 100, 1_000_000
"""A member may be so many times as large as its compressed bytes, or as large as that; weights do not shrink much."""


def weights_of(path: Path) -> bytes:
    """The HDF5 file in which the weights lie. Raises ModelError where this is no whole model."""
    begin = path.open("rb").read(len(HDF5))
    if begin == HDF5:
        return path.read_bytes()
    if not begin.startswith(ZIP):
        raise ModelError(
            f"{path}: expected a whole Keras model (.keras or .h5), found neither a zip nor an HDF5 file"
        )
    with zipfile.ZipFile(path) as archive:
        _refuse_hostile(archive, path)
        missing = [name for name in (CONFIG, WEIGHTS) if name not in archive.namelist()]
        if missing:
            raise ModelError(
                f"{path}: no {missing[0]} inside; expected a whole model as model.save('model.keras') writes it"
            )
        return archive.read(WEIGHTS)


def _refuse_hostile(archive: zipfile.ZipFile, path: Path) -> None:
    names = archive.namelist()
    outside = [
        name for name in names if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts
    ]
    if outside:
        raise ModelError(
            f"{path}: a member that lies outside of the archive: {outside[0]!r}; do not trust this file"
        )
    if len(names) != len(set(names)):
        raise ModelError(f"{path}: two members of one name; do not trust this file")
    bombs = [i.filename for i in archive.infolist() if i.file_size > max(FREE, INFLATION * i.compress_size)]
    if bombs:
        raise ModelError(
            f"{path}: {bombs[0]!r} would inflate more than {INFLATION} times; do not trust this file"
        )


def rewritten(path: Path, weights: bytes) -> bytes:
    """The whole file with other weights of the same size in it; every other member, and all headers, as they are."""
    if path.open("rb").read(len(HDF5)) == HDF5:
        return weights
    file = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(file, "w") as new:
        new.comment = old.comment
        for info in old.infolist():
            content = weights if info.filename == WEIGHTS else old.read(info)
            new.writestr(info, content, info.compress_type)
    return file.getvalue()
