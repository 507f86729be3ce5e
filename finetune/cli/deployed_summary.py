"""A recalibration and a drift in a dozen lines, and as plain values for scripts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any

from finetune.cli.profile import profile

if TYPE_CHECKING:
    from finetune.batchnorm.shift import Shift
    from finetune.drift_run import Drift
    from finetune.recalibration_run import Recalibrated


def recalibrated(done: Recalibrated, as_json: bool) -> str:
    """What the command writes."""
    return json.dumps(plain_values(done), indent=2) if as_json else "\n".join(recalibrated_lines(done))


def recalibrated_lines(done: Recalibrated) -> list[str]:
    """What was measured, what the gate says, where it lies and what to type next."""
    rows = [*measured_rows(done), ("version", [published(done)])]
    if done.version is not None:
        place = done.version.parent
        rows.append(("next", [f"finetune history {place}", f"finetune rollback {place}"]))
    return aligned(rows)


def measured_rows(done: Recalibrated) -> list[tuple[str, list[str]]]:
    """Wherever it is published."""
    measured = done.measurement
    checks = [f"{'✓' if check.passed else '✗'} {check.name}: {check.detail}" for check in done.verdict.checks]
    how = f"{measured.kind} statistics of {measured.images} images, {measured.method}"
    return [
        ("model", [f"{done.address}, {done.format}"]),
        ("measured", [how + (f", prior {measured.prior:g}" if measured.prior else "")]),
        ("shift", shift_lines(done.shifts)),
        ("gate", [*checks, *(["passed over by force"] if done.forced else [])]),
        ("notes", list(done.notes)),
    ]


def published(done: Recalibrated) -> str:
    if done.version is None:
        return "none: nothing was published"
    return f"{done.version}, {done.bytes_changed} bytes differ from its parent"


def drift_lines(found: Drift, threshold: float | None) -> list[str]:
    against = "its reference statistics" if found.against == "reference" else "its stored statistics"
    limit = "" if threshold is None else f", threshold {threshold:g}"
    rows = [
        ("model", [found.address]),
        ("seen", [f"{found.images} images, against {against}"]),
        ("shift", shift_lines(found.shifts)),
        ("overall", [f"{found.overall:.3f} sd{limit}"]),
    ]
    return aligned(rows)


def shift_lines(shifts: Mapping[str, Shift]) -> list[str]:
    mean = fmean(each.mean for each in shifts.values())
    worst = max(shifts, key=lambda path: shifts[path].mean)
    said = f"{len(shifts)} sites moved by {mean:.3f} sd on average, most {worst} by {shifts[worst].mean:.3f}"
    return [said, *([f"{profile([each.mean for each in shifts.values()])}  by depth"] if mean else [])]


def aligned(rows: list[tuple[str, list[str]]]) -> list[str]:
    return [
        f"{title if number == 0 else '':10}{line}" for title, some in rows for number, line in enumerate(some)
    ]


def plain_values(done: Recalibrated) -> dict[str, Any]:
    """For --json."""
    return {
        "model": done.address,
        "format": done.format,
        "version": None if done.version is None else str(done.version),
        "bytes_changed": done.bytes_changed,
        "measurement": dataclasses.asdict(done.measurement),
        "passed": done.verdict.passed,
        "forced": done.forced,
        "checks": [dataclasses.asdict(check) for check in done.verdict.checks],
        "scores": {name: dataclasses.asdict(each) for name, each in done.verdict.scores.items()},
        "shifts": {path: dataclasses.asdict(each) for path, each in done.shifts.items()},
        "notes": list(done.notes),
    }


def drift_values(found: Drift, threshold: float | None) -> dict[str, Any]:
    """For --json."""
    return {
        "model": found.address,
        "images": found.images,
        "against": found.against,
        "overall": found.overall,
        "worst": found.worst,
        "threshold": threshold,
        "above": threshold is not None and not found.overall <= threshold,
        "shifts": {path: dataclasses.asdict(each) for path, each in found.shifts.items()},
    }
