"""Finished cells, one JSON line each: whatever kills a comparison, what it finished is not trained again."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from finetune.comparison.outcome import Outcome
from finetune.errors import OutputError

NAME = "cells.jsonl"


class Journal:
    """The file in a folder, held by one comparison at a time; used as a context.

    Raises OutputError where another one holds it, or it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.known: dict[str, Outcome] = {}
        self._file: IO[bytes]

    def __enter__(self) -> Journal:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
        except OSError as error:
            raise OutputError(
                f"{self.path}: cannot be written ({error.strerror}); choose another --out"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise OutputError(
                f"{self.path}: another comparison is at work there; wait for it, or choose another --out"
            ) from error
        self._read()
        return self

    def _read(self) -> None:
        self._file.seek(0)
        whole = 0
        for line in self._file:
            record = _record(line)
            if record is None:
                break
            whole += len(line)
            self.known[record["key"]] = Outcome(**record["outcome"])
        # a line that was cut off in the middle is trained again
        self._file.truncate(whole)

    def add(self, key: str, words: str, outcome: Outcome) -> None:
        """It is on the disk when this returns."""
        self.known[key] = outcome
        line = json.dumps({"key": key, "cell": words, "outcome": outcome.plain()})
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _record(line: bytes) -> dict[str, Any] | None:
    """None where it is no whole line."""
    if not line.endswith(b"\n"):
        return None
    try:
        found = json.loads(line)
        Outcome(**found["outcome"])
    except (ValueError, TypeError, KeyError):
        return None
    return dict(found)
