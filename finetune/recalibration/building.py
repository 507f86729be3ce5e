"""Hidden folders in which versions are built, locked by whoever builds so that what a killed build left is known.

The kernel gives a lock back however its process ends, and a folder without its lock is a leftover: no process
number that another may have by now, no age to guess at.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune.folder_lock import lock_folder

PREFIX = ".building-"


@contextmanager
def building_folder(place: Path) -> Iterator[Path]:
    """A hidden folder in `place`, on its file system, gone after the block."""
    folder, lock = _locked_folder(place)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def clear_leftovers(place: Path) -> None:
    """Remove what killed builds left in `place`; those of builds that are alive stay."""
    for folder in place.glob(f"{PREFIX}*"):
        try:
            lock = lock_folder(folder)
        except OSError:  # in use, gone meanwhile, or on a file system without locks, where it must stay
            continue
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked_folder(place: Path) -> tuple[Path, int]:
    while True:
        folder = place / f"{PREFIX}{secrets.token_hex(8)}"
        folder.mkdir()
        try:
            lock = lock_folder(folder)
        except (BlockingIOError, FileNotFoundError):
            # another build took the new folder for a leftover before it was locked
            continue
        except OSError:
            return folder, os.open(folder, os.O_RDONLY)
        if folder.exists():
            return folder, lock
        os.close(lock)
