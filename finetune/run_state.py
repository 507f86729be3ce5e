"""What a run folder holds: a run that was begun, finished or failed, and whether a process is at work in it now."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from finetune.errors import InputError
from finetune.folder_lock import lock_folder
from finetune.whole_file import write_whole

STATE, HOLDER = "run.json", "run.lock"


@dataclass(frozen=True)
class RunState:
    """status: begun also means broken off, where no process is at work. data: digest of the images. mlflow_run: its id
    there. reason: why it failed. sittings: how often it was begun or gone on with. key: marks its MLflow run, which is
    found again by it where the process was killed before the id was known."""

    data: str
    status: Literal["begun", "finished", "failed"] = "begun"
    mlflow_run: str = ""
    reason: str = ""
    sittings: int = 1
    key: str = ""


def write_state(folder: Path, state: RunState) -> None:
    write_whole(folder / STATE, json.dumps(asdict(state), indent=2) + "\n")


def resumable_state(folder: Path) -> RunState:
    """That of a run that was broken off. Raises InputError for anything else, and says what to do."""
    state = _read_state(folder)
    if state.status == "finished":
        raise InputError(f"{folder}: this run is finished; what it found out is in {folder / 'report.html'}")
    if state.status == "failed":
        raise InputError(
            f"{folder}: this run failed, and would again: {state.reason}; change the recipe and start it anew"
        )
    return state


def finished_state(folder: Path) -> RunState:
    """That of a run that has ended well. Raises InputError for anything else, and says what to do."""
    state = _read_state(folder)
    if state.status == "failed":
        raise InputError(f"{folder}: this run failed: {state.reason}")
    if state.status == "begun":
        raise InputError(f"{folder}: this run is not finished; go on with: finetune run --resume {folder}")
    return state


def _read_state(folder: Path) -> RunState:
    try:
        return RunState(**json.loads((folder / STATE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{folder}: no run there: {STATE} is missing or damaged; expected the folder of a run, as runs/NAME-1"
        ) from error


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; given back however the process ends.

    Raises InputError where another process holds it, and says which.
    """
    note = folder / HOLDER
    try:
        lock = lock_folder(folder)
    except BlockingIOError as error:
        holder = note.read_text(encoding="utf-8").strip() if note.exists() else "another process"
        raise InputError(f"{folder}: {holder} is at work there; wait for it, or stop it") from error
    try:
        note.write_text(f"process {os.getpid()} on {platform.node()}\n", encoding="utf-8")
        yield
    finally:
        note.unlink(missing_ok=True)
        os.close(lock)
