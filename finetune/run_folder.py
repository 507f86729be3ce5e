"""The folder of one run, `runs/<name>-<n>/`: everything that was found out, whether or not MLflow was there."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finetune.errors import OutputError
from finetune.whole_file import write_whole

CANNOT_WRITE = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file larger than the file system, or the limit of this user, allows",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
}


def new_run_folder(runs: Path, name: str) -> Path:
    """Make `runs/<name>-<n>` with the first n that is free. Raises OutputError where none can be made."""
    if runs.exists() and not runs.is_dir():
        raise OutputError(f"{runs}: expected a folder for runs, found a file; choose another with --runs-dir")
    with clear_output_errors(runs):
        runs.mkdir(parents=True, exist_ok=True)
        number = 1
        while not _made(folder := runs / f"{name}-{number}"):
            number += 1
        return folder


def _made(folder: Path) -> bool:
    try:
        # mkdir is atomic: of two runs started together each gets its own
        folder.mkdir()
    except FileExistsError:
        return False
    return True


@contextmanager
def clear_output_errors(folder: Path) -> Iterator[None]:
    """Say which file cannot be written and why, instead of a traceback from deep inside a library."""
    try:
        yield
    except OSError as error:
        reason = CANNOT_WRITE.get(error.errno or 0)
        if reason is None:
            raise
        raise OutputError(
            f"{error.filename or folder}: {reason}; make room or choose another place with --runs-dir "
            f"(what was written so far stays in {folder})"
        ) from error


def append_metrics(folder: Path, record: Mapping[str, Any]) -> None:
    """One line more in metrics.jsonl, handed to the system when this returns."""
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(record) + "\n")


def rewrite_metrics(folder: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Only these lines in metrics.jsonl: an epoch that was not finished for good is run again."""
    write_whole(folder / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in records))
