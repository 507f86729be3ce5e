"""Shares that were measured apart, each into a file of its own, and what they are together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from finetune.batchnorm.moments_file import SavedMoments, load, merge, save
from finetune.batchnorm.targets import MeasuredSite
from finetune.errors import DataError, OutputError, first_line


def merge_files(parts: Sequence[Path], out: Path) -> SavedMoments:
    """Write the moments of all shares together. Raises DataError with every file that cannot be one of them."""
    read, problems = [], [*_twice(parts)]
    for part in parts:
        try:
            read.append(load(part))
        except (OSError, ValueError) as error:
            problems.append(_unreadable(part, error))
    if problems:
        raise DataError(problems)
    try:
        merged = merge(read)
    except ValueError as error:
        raise DataError(first_line(error)) from error
    write_moments(out, merged)
    return merged


def write_moments(path: Path, saved: SavedMoments) -> None:
    """Beside its place first. Raises OutputError."""
    part = path.with_name(f"{path.name}.part")
    try:
        save(part, saved)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from error


def moments_for(sites: Sequence[MeasuredSite], path: Path) -> SavedMoments:
    """Those of a file, by sites in their order. Raises DataError where they are of another network."""
    try:
        saved = load(path)
    except (OSError, ValueError) as error:
        raise DataError(_unreadable(path, error)) from error
    missing = [site.path for site in sites if site.path not in saved.moments]
    if missing or len(saved.moments) != len(sites):
        raise DataError(
            f"{path}: moments of another network: {len(saved.moments)} sites, the model has {len(sites)}"
            + (f", of which {missing[0]} is not in it" if missing else "")
        )
    return SavedMoments({site.path: saved.moments[site.path] for site in sites}, saved.images, saved.digests)


def _twice(parts: Sequence[Path]) -> list[str]:
    first: dict[str, Path] = {}
    problems = []
    for part in (each for each in parts if each.is_file()):
        content = hashlib.sha256(part.read_bytes()).hexdigest()
        if content in first:
            problems.append(f"{part}: holds the same share as {first[content]}; each counts once")
        first.setdefault(content, part)
    return problems


def _unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return (
            f"{path}: there is no such file; `finetune recalibrate --shard I/N --statistics FILE` writes one"
        )
    return first_line(error)
