"""Publish a version: built out of sight, on disk, then there by one rename.

Whatever kills a publication leaves the place without the version or with the whole of it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from finetune.errors import OutputError
from finetune.recalibration.building import building_folder, clear_leftovers
from finetune.recalibration.versions import HIGHEST, MODEL_FILES, is_number
from finetune.run_folder import CANNOT_WRITE


def publish(build: Callable[[Path], None], place: Path) -> Path:
    """Build a version out of sight and let it appear whole as the next number; returns its folder.

    build: makes a folder at the path it is given, which does not exist yet. What a killed build leaves is hidden
    from servers and removed by the next one. No version that is there is ever touched, and of two builds at once
    each gets a number of its own. Raises OutputError where the place cannot be written, and what `build` raises.
    """
    if place.suffix in MODEL_FILES or (place.exists() and not place.is_dir()):
        raise OutputError(
            f"{place}: expected a folder for numbered versions, got a file name; give {place.with_suffix('')}, "
            "and the new version lies in it in a folder of its own"
        )
    try:
        _make_durably(place)
        clear_leftovers(place)
        with building_folder(place) as folder:
            made = folder / "version"
            build(made)
            _to_disk(made)
            return _appear(made, place)
    except OSError as error:
        reason = CANNOT_WRITE.get(error.errno or 0)
        if reason is None:
            raise
        raise OutputError(f"{error.filename or place}: {reason}; nothing was published") from error


def _appear(made: Path, place: Path) -> Path:
    """Rename to the next number; another build may have taken it meanwhile."""
    while True:
        # files count too: a number is taken whatever has it
        taken = [int(entry.name) for entry in place.iterdir() if is_number(entry.name)]
        number = max(taken, default=0) + 1
        if number > HIGHEST:
            raise OutputError(f"{place}: version {number - 1} is the highest that a server can read")
        version = place / str(number)
        try:
            os.rename(made, version)
        except OSError:
            if version.exists():
                continue
            raise
        _sync(place)
        return version


def copy_model(source: Path, folder: Path) -> None:
    """A copy of a version, byte by byte: a hard link would change with the original."""
    shutil.copytree(source, folder, copy_function=shutil.copyfile)


def _make_durably(place: Path) -> None:
    missing = [folder for folder in (place, *place.parents) if not folder.exists()]
    place.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        _sync(folder.parent)


def _to_disk(made: Path) -> None:
    for folder, _, files in os.walk(made, topdown=False):
        for name in files:
            _sync(Path(folder, name))
        _sync(Path(folder))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
