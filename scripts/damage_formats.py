"""Damage copies of a small model in every format at random, and count what recalibration makes of them.

A copy is refused in words, or the result is correct: what the format's own library makes of the damaged file and of
the recalibrated one. Anything else (a traceback, a changed original, something left behind) is listed with its seed,
and the exit code is 1. tests/formats/test_damaged.py does the same with a few copies.

    uv run python scripts/damage_formats.py --copies 200
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

# as the command line does, read when TensorFlow is imported (finetune/cli/quiet.py)
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# the damage is that of the tests
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console
from rich.table import Table

from tests.formats.damaging import FORMATS, make, outcome, pictures

OUTCOMES = ("refused", "correct", "other")


def main() -> int:
    options = arguments()
    table = Table("format", "copies", *OUTCOMES)
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="damage-formats-") as folder:
        images = pictures(Path(folder, "pictures"))
        for number, name in enumerate(options.formats):
            whole = make(name, Path(folder, f"whole_{number}"))
            counted: Counter[str] = Counter()
            for seed in range(options.first, options.first + options.copies):
                found, said = judged(whole, seed, images)
                counted[found] += 1
                wrong += [f"{name}, seed {seed}: {said}"] if said else []
                print(f"\r{name}: {seed + 1 - options.first}/{options.copies}", end="", file=sys.stderr)
            print(file=sys.stderr)
            table.add_row(name, str(options.copies), *(str(counted[each]) for each in OUTCOMES))
    Console(width=120).print(table)
    print("\n".join(wrong), end="\n" if wrong else "")
    return 1 if wrong else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--formats", nargs="+", default=list(FORMATS), choices=list(FORMATS), metavar="FORMAT"
    )
    parser.add_argument("--copies", type=int, default=200, help="damaged copies of each format")
    parser.add_argument("--first", type=int, default=0, help="seed of the first copy")
    return parser.parse_args()


def judged(whole: Path, seed: int, images: Path) -> tuple[str, str]:
    """One of OUTCOMES, and what went wrong where it is "other"."""
    with tempfile.TemporaryDirectory(prefix="damaged-") as place:
        try:
            return outcome(whole, seed, images, Path(place)), ""
        # whatever a damaged file runs into is what is looked for here
        except Exception:
            return "other", traceback.format_exc()


if __name__ == "__main__":
    sys.exit(main())
