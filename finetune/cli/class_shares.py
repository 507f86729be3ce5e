"""Class shares as a person writes them: in the command line for a few classes, in a JSON file for many."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from finetune.errors import InputError

EXPECTED = "expected a number a class, as in 7000,3000, or a JSON file with a list of them"


def shares_in(text: str) -> tuple[float, ...]:
    """Shares that add up to 1, of counts or shares. Raises InputError for anything else."""
    found = _in_file(Path(text)) if Path(text).is_file() else text.split(",")
    try:
        values = [float(value) for value in found]
    except (TypeError, ValueError) as error:
        raise InputError(f"--class-shares: {EXPECTED}, got {text!r}") from error
    total = math.fsum(values)
    if len(values) < 2 or min(values) < 0 or not (0 < total < math.inf):
        raise InputError(f"--class-shares: {EXPECTED}, none below 0 and two classes at least, got {text!r}")
    return tuple(value / total for value in values)


def _in_file(path: Path) -> list[Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"--class-shares: {path} is no JSON: {error}") from error
    if not isinstance(found, list):
        raise InputError(f"--class-shares: {path}: {EXPECTED}, got {type(found).__name__}")
    return found
