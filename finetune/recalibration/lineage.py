"""What a version was made from, by whom it was judged, and what it replaced: `provenance.json` inside it.

What the training wrote there travels on; the record of the recalibration stands beside it under one key.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from finetune.errors import ModelError, first_line
from finetune.recalibration.companions import provenance_file
from finetune.recalibration.model_hash import model_hash

KEY = "lineage"


class Part(BaseModel):
    """Of a record. Keys that a later release adds are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Parent(Part):
    """What a version was made from. name: of its file or folder, or an MLflow address; hash: finetune.recalibration
    .model_hash of it; version: its number, where it lies in the same place."""

    name: str
    hash: str
    version: int | None = None


class Images(Part):
    """The calibration set. digest: hash of the list (finetune.recalibration.images); of shares
    that were measured together the hash of theirs (finetune.recalibration.pooling)."""

    source: str
    count: int
    digest: str


class Judgement(Part):
    """One check of the gate: finetune.result.Check, as it is kept."""

    name: str
    passed: bool
    detail: str


class Lineage(Part):
    """How a version came to be.

    kind: "original" for a copy of a model that was made elsewhere. images, method, statistics, prior, before, after,
    gate: of a recalibration. forced: published against the gate. reason: why it was forced or rolled back.
    rolled_back: by a rollback, the version that was given up. hash: of the version itself. packages: versions of what
    computed it.
    """

    kind: Literal["recalibration", "rollback", "original"]
    parent: Parent
    date: str = ""
    images: Images | None = None
    method: Literal["layerwise", "one_pass"] | None = None
    statistics: Literal["plain", "matched"] | None = None
    prior: float = 0.0
    before: Mapping[str, float] = {}
    after: Mapping[str, float] = {}
    gate: tuple[Judgement, ...] = ()
    forced: bool = False
    reason: str = ""
    rolled_back: int | None = None
    packages: Mapping[str, str] = {}
    hash: str = ""


def write_lineage(version: Path, lineage: Lineage, trained: Mapping[str, Any] | None = None) -> None:
    """Into a version that is being built, as the last thing: date and hash are filled in.

    trained: the provenance of the parent (`read_provenance`), which is carried on.
    """
    record = lineage.model_copy(
        update={
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "hash": model_hash(version),
        }
    )
    values = {"format": 1} | dict(trained or {}) | {KEY: record.model_dump(mode="json")}
    file = provenance_file(version)
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def read_provenance(version: Path) -> dict[str, Any]:
    """All that is written about a version, or beside a model file, by the training too; empty where nothing is.

    Raises ModelError for a damaged file, in one line.
    """
    file = provenance_file(version)
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file}: cannot be read: {first_line(error)}") from error
    if not isinstance(values, dict):
        raise ModelError(f"{file}: expected an object, found {type(values).__name__}")
    return values


def read_lineage(version: Path) -> Lineage | None:
    """How the version came to be; None where nothing says so. Raises ModelError for a damaged record, in one line."""
    values = read_provenance(version)
    if KEY not in values:
        return None
    try:
        return Lineage.model_validate(values[KEY])
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in (KEY, *first["loc"]))
        raise ModelError(f"{provenance_file(version)}: {place}: {first['msg']}") from error
