"""result.json: what a run found out, to be read again by scripts, and by whoever sends it to MLflow later."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from finetune.errors import InputError
from finetune.result import Check, ClassCounts, EpochRecord, Evaluation, RunResult, SiteRecord
from finetune.whole_file import write_whole

NAME = "result.json"


def write_result(result: RunResult, folder: Path) -> None:
    """Every field but the place that the folder had."""
    plain = dataclasses.asdict(result)
    del plain["folder"]
    write_whole(folder / NAME, json.dumps(plain, indent=2, default=str) + "\n")


def read_result(folder: Path) -> RunResult:
    """Wherever the folder is now. Raises InputError where the file is missing or damaged."""
    path = folder / NAME
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        nested = {
            "folder": folder,
            "class_names": tuple(plain["class_names"]),
            "epochs": tuple(EpochRecord(**record) for record in plain["epochs"]),
            "sites": tuple(SiteRecord(**site) for site in plain["sites"]),
            "checks": tuple(Check(**check) for check in plain["checks"]),
            "notes": tuple(plain["notes"]),
            "test": Evaluation(
                plain["test"]["metrics"],
                tuple(tuple(row) for row in plain["test"]["confusion"]),
                plain["test"]["count"],
                # results of earlier versions have one class an image
                tuple(ClassCounts(**counts) for counts in plain["test"].get("by_class", ())),
            ),
        }
        return RunResult(**{**plain, **nested})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path}: missing or damaged; expected what `finetune run` leaves at its end ({error})"
        ) from error
