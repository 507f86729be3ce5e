"""Which run of MLflow is the parent of a comparison: a file in its folder, so that the same comparison has one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune.whole_file import write_whole

NAME = "mlflow.json"


def earlier_parent(folder: Path, store: str | None, params: Mapping[str, Any]) -> str:
    """The id of its run; empty where there is none for this store, or another grid was compared."""
    try:
        found = json.loads((folder / NAME).read_text(encoding="utf-8"))
        return str(found["run"]) if found["of"] == _of(store, params) else ""
    except (OSError, ValueError, TypeError, KeyError):
        return ""


def remember_parent(folder: Path, store: str | None, params: Mapping[str, Any], run: str) -> None:
    """For the next time that the same grid is compared there."""
    text = json.dumps({"run": run, "of": _of(store, params)}) + "\n"
    write_whole(folder / NAME, text)


def _of(store: str | None, params: Mapping[str, Any]) -> str:
    """As a digest: the address of a store may hold a password."""
    return hashlib.sha256(json.dumps([store, dict(params)]).encode()).hexdigest()
