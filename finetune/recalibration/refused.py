"""What a gate found, kept where it refused: nothing was published, and someone has to see why."""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path
from typing import Any

from finetune.recalibration.before_after import BeforeAfter
from finetune.recalibration.gate import Verdict
from finetune.whole_file import write_whole


def keep_refusal(file: Path, found: BeforeAfter, verdict: Verdict) -> str:
    """Write it and say where it lies; nothing is raised where it cannot be written, since the refusal comes first."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(refusal(found, verdict), indent=2) + "\n")
    except OSError as error:
        return f"the report could not be written to {file}: {error.strerror or error}"
    return f"the full report is in {file}"


def refusal(found: BeforeAfter, verdict: Verdict) -> dict[str, Any]:
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "model": found.subject.address,
        "images": {
            "source": found.images.source,
            "count": found.measurement.images,
            "digest": found.images.digest,
        },
        "measurement": dataclasses.asdict(found.measurement),
        "reason": verdict.reason,
        "checks": [dataclasses.asdict(check) for check in verdict.checks],
        "before": found.scores(found.before),
        "after": found.scores(found.after),
        "shifts": {path: dataclasses.asdict(shift) for path, shift in found.shifts.items()},
    }
