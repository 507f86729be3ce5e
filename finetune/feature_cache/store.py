"""Rows on disk: one file a key, verified before use, within a bound.

A file is a NumPy array in the .npy format, followed by the SHA-256 of its key and all that comes before. It is
written beside its place and renamed, so that whoever finds it finds all of it; any of them may be deleted at
any time.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from finetune.feature_cache.rows import Rows

SUFFIX, UNFINISHED = ".features", ".features-unfinished"
DIGEST_BYTES = hashlib.sha256().digest_size
CHUNK = 2**22


def default_folder() -> Path:
    """FINETUNE_CACHE, else finetune/features in the person's cache folder."""
    given = os.environ.get("FINETUNE_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finetune" / "features"


@dataclass(frozen=True)
class Space:
    """Bytes that cached features may take: in memory for one stage, on disk for all runs together."""

    memory: int = 2 * 10**9
    disk: int = 20 * 10**9
    folder: Path = field(default_factory=default_folder)


def load(folder: Path, key: str) -> Rows | None:
    """The rows of this key, mapped read-only from disk; None where there are none.

    A file that is damaged, or holds the rows of another key, is deleted. Raises OSError.
    """
    path = folder / (key + SUFFIX)
    if not path.exists():
        return None
    if not _sound(path, key):
        path.unlink(missing_ok=True)
        return None
    # the file that was used last is the last to make room
    os.utime(path)
    rows: Rows = np.load(path, mmap_mode="r")
    return rows


def _sound(path: Path, key: str) -> bool:
    left = path.stat().st_size - DIGEST_BYTES
    digest = hashlib.sha256(key.encode())
    with path.open("rb") as file:
        while left > 0 and (chunk := file.read(min(left, CHUNK))):
            digest.update(chunk)
            left -= len(chunk)
        return file.read() == digest.digest()


def save(space: Space, key: str, count: int, row: np.dtype[np.void], batches: Iterable[Rows]) -> None:
    """Write `count` rows, which come in batches, under this key; files not used for longest make room.

    Raises OSError where they cannot be written or do not fit.
    """
    space.folder.mkdir(parents=True, exist_ok=True)
    _make_room(space, count * row.itemsize)
    unfinished = space.folder / f"{key}.{os.getpid()}{UNFINISHED}"
    digest = hashlib.sha256(key.encode())
    try:
        # in order and not through a memory map, which kills the process where the disk is full
        with unfinished.open("wb") as file:
            for content in _contents(count, row, batches):
                file.write(content)
                digest.update(content)
            file.write(digest.digest())
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(space.folder / (key + SUFFIX))
    finally:
        unfinished.unlink(missing_ok=True)


def _contents(count: int, row: np.dtype[np.void], batches: Iterable[Rows]) -> Iterator[bytes]:
    header = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(row), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(header, described)
    yield header.getvalue()
    for batch in batches:
        yield batch.tobytes()


def _make_room(space: Space, needed: int) -> None:
    """Delete files, longest unused first, until `needed` bytes fit the bound and half of the free disk."""
    held = sorted(((path, path.stat()) for path in _files(space.folder)), key=lambda file: file[1].st_mtime)
    taken = sum(stat.st_size for _, stat in held)
    room = min(space.disk, taken + shutil.disk_usage(space.folder).free // 2)
    if needed > room:
        raise OSError(
            errno.ENOSPC, f"the features take {needed} bytes, {room} are allowed", str(space.folder)
        )
    for path, stat in held:
        if taken + needed <= room:
            return
        path.unlink(missing_ok=True)
        taken -= stat.st_size


def clear(folder: Path) -> int:
    """Delete all cached features, and nothing else, in this folder; how many bytes that were."""
    files = [(path, path.stat().st_size) for path in _files(folder)]
    for path, _ in files:
        path.unlink(missing_ok=True)
    return sum(size for _, size in files)


def _files(folder: Path) -> list[Path]:
    return [path for suffix in (SUFFIX, UNFINISHED) for path in folder.glob("*" + suffix)]
