"""What must hold at any moment of a soak, whatever was killed or starved before: read off the disk and the store."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from finetune.errors import FinetuneError
from finetune.recalibration.history import history
from finetune.recalibration.model_hash import model_hash

LEFT = (
    "model.keras",
    "result.json",
    "metrics.jsonl",
    "report.html",
    "provenance.json",
    "saved_model/1/saved_model.pb",
)


def everything(place: Path, store: str, last: int | None) -> list[str]:
    """All findings; of the served versions only the `last` ones are hashed, all of them where it is None."""
    findings = [*runs_whole(place / "runs"), *served_whole(place / "served", last)]
    with sqlite3.connect(
        f"file:{store.removeprefix('sqlite:///')}?mode=ro", uri=True, timeout=60
    ) as database:
        for folder in finished(place / "runs"):
            findings += logged_once(folder, database)
    database.close()
    if last is None:
        findings += [f"{left}: left by a publication" for left in (place / "served").glob(".building-*")]
        findings += [
            f"{folder}: neither finished nor failed"
            for folder in (place / "runs").iterdir()
            if status(folder) == "begun"
        ]
    return findings


def status(folder: Path) -> str:
    try:
        return str(json.loads((folder / "run.json").read_text())["status"])
    except FileNotFoundError:
        return "none"


def finished(runs: Path) -> list[Path]:
    return [folder for folder in sorted(runs.iterdir()) if status(folder) == "finished"]


def runs_whole(runs: Path) -> Iterator[str]:
    """A finished run has all it promises, and no leftovers."""
    for folder in finished(runs):
        yield from (f"{folder.name}: no {name}" for name in LEFT if not (folder / name).exists())
        # a folder in which a process still is at work may hold what it writes
        leftovers = [path.name for path in folder.rglob("*.part")] + [
            p.name for p in folder.glob("checkpoint*")
        ]
        if leftovers and not (folder / "run.lock").exists():
            yield f"{folder.name}: left behind {leftovers}"


def logged_once(folder: Path, database: sqlite3.Connection) -> Iterator[str]:
    """Every metric of every epoch and of the test stands in MLflow once; the run is finished and has one model."""
    if (folder / "run.lock").exists():
        return
    run = json.loads((folder / "run.json").read_text())["mlflow_run"]
    result = json.loads((folder / "result.json").read_text())
    expected = {(f"test/{name}", 0): value for name, value in result["test"]["metrics"].items()}
    for epoch in result["epochs"]:
        expected |= {(name, epoch["step"]): value for name, value in epoch["metrics"].items()}
    rows = database.execute(
        "select key, step, value, is_nan from metrics where run_uuid = ?", (run,)
    ).fetchall()
    found: dict[tuple[str, int], list[float]] = {}
    for key, step, value, is_nan in rows:
        found.setdefault((key, step), []).append(math.nan if is_nan else value)
    for point, value in expected.items():
        values = found.get(point, [])
        # measured once more after the training, at the last step
        wrong = value not in values if point[0].startswith("bn_shift/") else values != [value]
        if wrong:
            yield f"{folder.name}: {point} is {value}, in MLflow {values}"
    [(state,)] = database.execute("select status from runs where run_uuid = ?", (run,)).fetchall() or [
        ("none",)
    ]
    if state != "FINISHED":
        yield f"{folder.name}: in MLflow the run is {state}"
    models = database.execute(
        "select count(*) from logged_models where source_run_id = ? and lifecycle_stage != 'deleted'", (run,)
    ).fetchone()[0]
    if models != 1:
        yield f"{folder.name}: {models} models in MLflow"


def served_whole(place: Path, last: int | None) -> Iterator[str]:
    """Versions without a gap, each what was published, made from what its record says."""
    versions = history(place)
    numbers = [version.number for version in versions]
    if numbers != list(range(len(numbers), 0, -1)):
        yield f"{place.name}: versions {numbers}"
    hashes = {v.number: v.lineage.hash for v in versions if v.lineage}
    for version in versions[:last]:
        if version.lineage is None:
            yield f"{version.folder}: {version.story}"
            continue
        parent = version.lineage.parent
        if parent.version is not None and hashes.get(parent.version) != parent.hash:
            yield f"{version.folder}: its parent {parent.version} is not what it was made from"
        try:
            if model_hash(version.folder) != version.lineage.hash:
                yield f"{version.folder}: not what was published"
        except (OSError, FinetuneError) as error:
            yield f"{version.folder}: {error}"
