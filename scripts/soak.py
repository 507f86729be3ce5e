"""Hours of `run`, `recalibrate` and `compare` in one place, a fault at most turns, and a look at all of it after each.

    python scripts/soak.py soak-folder --hours 2
    python scripts/soak.py --summary soak-folder/turns.jsonl --figure docs/soak.svg

One sqlite store, one folder of runs and one deployed model serve the whole soak. Beside the turns, one process calls
`finetune.recalibrate`, `drift` and `fine_tune` again and again: its memory is what the figure shows. A line of
turns.jsonl is a turn, or a call of that process. A finding is a line and not the end; with one, the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from soak_checks import everything
from soak_figure import summed_up
from soak_turns import TURNS, Soak

PAUSE = 15
"""Seconds between two calls of the long-lived process, so that the commands get on as well."""


def one_turn(soak: Soak) -> None:
    soak.turn += 1
    what = soak.next_turn()
    begun = time.time()
    children = [child.waited() for child in what(soak)]
    findings = [
        *(finding for child in children for finding in child.findings),
        *everything(soak.place, soak.store, last=3),
    ]
    soak.add(
        {
            "kind": "turn",
            "turn": soak.turn,
            "what": what.__name__,
            "at": begun,
            "seconds": time.time() - begun,
            "codes": [child.code for child in children],
            "peak_mb": max((child.peak_mb for child in children), default=0),
            "disk_mb": sum(p.lstat().st_size for p in soak.place.rglob("*") if p.is_file()) >> 20,
            "driver_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
            "findings": findings,
        }
    )


def long_lived(soak: Soak, until: float) -> None:
    """Feed the process that lives as long as the soak, and keep what it says."""
    program = Path(__file__).with_name("soak_worker.py")
    with (soak.place / "worker.txt").open("w") as says:
        worker = subprocess.Popen(
            [sys.executable, program, str(soak.place)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=says,
            text=True,
            start_new_session=True,
        )
    number = 0
    assert worker.stdin is not None
    assert worker.stdout is not None
    while time.time() < until:
        worker.stdin.write(f"{number}\n")
        worker.stdin.flush()
        line = worker.stdout.readline()
        if not line:
            soak.add(
                {
                    "kind": "call",
                    "findings": [f"the long-lived process died: {worker.wait()}"],
                    "at": time.time(),
                }
            )
            return
        soak.add(json.loads(line))
        number += 1
        time.sleep(PAUSE)
    worker.stdin.close()
    worker.wait()


def prepare(place: Path) -> None:
    """A small backbone and its recipe, pictures of two cameras, a first run, and its model in service."""
    (place / "says").mkdir(parents=True, exist_ok=True)
    program = Path(__file__).with_name("soak_worker.py")
    subprocess.run([sys.executable, program, str(place), "--prepare"], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("place", type=Path, nargs="?")
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="turns of this name alone")
    parser.add_argument("--summary", type=Path, metavar="FILE", help="sum up a soak, also an unfinished one")
    parser.add_argument("--figure", type=Path, metavar="SVG")
    given = parser.parse_args()
    if given.summary:
        print(summed_up(given.summary, given.figure))
        return
    place = given.place.resolve()
    place.mkdir(parents=True, exist_ok=True)
    if given.only:
        [chosen] = [each for each in TURNS if each.__name__ == given.only]
        TURNS.clear()
        TURNS[chosen] = 1
    prepare(place)
    record, lock = (place / "turns.jsonl").open("a"), threading.Lock()

    def add(line: dict[str, Any]) -> None:
        with lock:
            record.write(json.dumps(line) + "\n")
            record.flush()

    until = time.time() + given.hours * 3600
    soak = Soak(place, random.Random(given.seed), add)
    beside = threading.Thread(target=long_lived, args=(soak, until))
    beside.start()
    while time.time() < until:
        try:
            one_turn(soak)
        except Exception as error:
            add(
                {
                    "kind": "broken",
                    "turn": soak.turn,
                    "at": time.time(),
                    "findings": [f"turn {soak.turn}: {error!r}"],
                }
            )
    beside.join()
    left = everything(place, soak.store, last=None)
    add({"kind": "end", "at": time.time(), "findings": left})
    print(summed_up(place / "turns.jsonl", given.figure))
    sys.exit(1 if left else 0)


if __name__ == "__main__":
    main()
