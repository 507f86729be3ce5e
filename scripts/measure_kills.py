"""Kill `finetune run` at random moments with SIGKILL, resume it, and compare what comes out with a run without a break.

    python scripts/measure_kills.py recipes/resnet_recalibrate.yaml --kills 30 \\
        --set stages.1.epochs=2 --set checkpoint.minutes=0.02

The clock starts when the run folder appears, so that a kill hits training, measuring, writing or MLflow. With
--signal TERM it is what a batch queue sends first. Every run that was killed is resumed until it ends. Batches are
counted as they are trained on: those of both sittings together that are more than one run has were lost. Prints one
line a kill, and at the end what was lost.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path
from statistics import median

import h5py
import numpy as np
from mlflow import MlflowClient

COUNTED = "--counted"
BATCHES = "batches"
"""File in which a run leaves a byte for every batch that it has trained on."""

SIGNALS = {"KILL": signal.SIGKILL, "TERM": signal.SIGTERM}


def counted(arguments: list[str]) -> None:
    """`finetune`, which counts."""
    from finetune.cli import main
    from finetune.progress import LineProgress

    descriptor = os.open(BATCHES, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    shown = LineProgress.batch

    def batch(self: LineProgress, step: int, loss: float, accuracy: float) -> None:
        shown(self, step, loss, accuracy)
        os.write(descriptor, b".")

    LineProgress.batch = batch  # type: ignore[method-assign]
    sys.argv = ["finetune", *arguments]
    main()


class Command:
    """One `finetune run` in a folder. says: the lines it wrote."""

    def __init__(self, folder: Path, arguments: list[str]) -> None:
        self.says = folder / "says.txt"
        command = [sys.executable, str(Path(__file__).resolve()), COUNTED, "run", *arguments]
        with self.says.open("w") as says:
            self.process = subprocess.Popen(command, cwd=folder, stderr=says, stdout=subprocess.DEVNULL)

    def doing(self) -> str:
        """The last phase it named."""
        lines = [line for line in self.says.read_text().splitlines() if line.strip()]
        return lines[-1].strip()[:60] if lines else "starting"


def run_whole(folder: Path, arguments: list[str]) -> float:
    """Seconds from the moment that the run folder is there."""
    command = Command(folder, arguments)
    begun = wait_for_folder(folder, command)
    if command.process.wait():
        sys.exit(f"the run without a break failed:\n{command.says.read_text()}")
    return time.perf_counter() - begun


def wait_for_folder(folder: Path, command: Command) -> float:
    while not list(folder.glob("runs/*/run.json")):
        if command.process.poll() is not None:
            sys.exit(f"it ended before there was a run folder:\n{command.says.read_text()}")
        time.sleep(0.02)
    return time.perf_counter()


def batches(folder: Path) -> int:
    file = folder / BATCHES
    return file.stat().st_size if file.exists() else 0


def killed(folder: Path, arguments: list[str], after: float, number: int) -> str:
    """What it was doing when it was killed; "finished" where it had ended before."""
    command = Command(folder, arguments)
    begun = wait_for_folder(folder, command)
    time.sleep(max(0.0, after - (time.perf_counter() - begun)))
    ended = command.process.poll() is not None
    doing = command.doing()
    command.process.send_signal(number)
    command.process.wait()
    return "finished" if ended else doing


def resumed(folder: Path) -> str:
    """ "resumed", "finished before" where it was killed as it left, or what it said when it refused."""
    [run] = folder.glob("runs/*")
    if json.loads((run / "run.json").read_text())["status"] == "finished":
        return "finished before"
    command = Command(folder, ["--resume", str(run.relative_to(folder))])
    return "resumed" if command.process.wait() == 0 else command.says.read_text().strip().splitlines()[-1]


def left_behind(folder: Path) -> dict[str, object]:
    """All that must not depend on a kill: weights, reference statistics, records, test metrics."""
    [run] = folder.glob("runs/*")
    with zipfile.ZipFile(run / "model.keras") as archive:
        weights = h5py.File(io.BytesIO(archive.read("model.weights.h5")))
    arrays: dict[str, bytes] = {}
    weights.visititems(
        lambda name, item: arrays.update({name: item[()].tobytes()}) if hasattr(item, "dtype") else None
    )
    with np.load(run / "reference_statistics.npz") as reference:
        moments = {name: reference[name].tobytes() for name in reference.files}
    return {
        "weights": {name: value for name, value in arrays.items() if not name.startswith("optimizer")},
        "reference statistics": moments,
        "records": (run / "metrics.jsonl").read_text(),
        "test metrics": {k: v for k, v in in_mlflow(folder)["metrics"].items() if k.startswith("test/")},
    }


def in_mlflow(folder: Path) -> dict[str, object]:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    [experiment] = [each for each in client.search_experiments() if each.name != "Default"]
    runs = client.search_runs([experiment.experiment_id])
    points = [
        (name, point.step, point.value)
        for one in runs
        for name in one.data.metrics
        if not name.startswith(("seconds/", "bn_shift/"))
        for point in client.get_metric_history(one.info.run_id, name)
    ]
    return {
        "runs": len(runs),
        "status": {one.info.status for one in runs},
        "twice": len(points) - len(set(points)),
        "models": len(client.search_logged_models([experiment.experiment_id])),
        "metrics": runs[0].data.metrics,
    }


def compared(folder: Path, straight: dict[str, object]) -> list[str]:
    """What differs from the run without a break, or stands twice in MLflow."""
    found = left_behind(folder)
    wrong = [name for name, value in found.items() if value != straight[name]]
    tracked = in_mlflow(folder)
    expected = {"runs": 1, "status": {"FINISHED"}, "twice": 0, "models": 1}
    return wrong + [
        f"MLflow {name}: {tracked[name]}" for name, value in expected.items() if tracked[name] != value
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=SIGNALS, default="KILL")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    given = parser.parse_args()
    arguments = [str(given.recipe.resolve()), *(word for each in given.overrides for word in ("--set", each))]
    draw, outcomes, lost = random.Random(given.seed), Counter[str](), list[int]()
    with tempfile.TemporaryDirectory() as place:
        first = Path(place, "straight")
        first.mkdir()
        seconds = run_whole(first, arguments)
        straight = left_behind(first)
        total = batches(first)
        print(f"without a break: {seconds:.0f} s from the run folder on, {total} batches", flush=True)
        for number in range(given.kills):
            folder = Path(place, f"kill-{number}")
            folder.mkdir()
            after = draw.uniform(0, seconds)
            doing = killed(folder, arguments, after, SIGNALS[given.signal])
            done = batches(folder)
            outcome = "finished before" if doing == "finished" else resumed(folder)
            went_on = outcome in ("finished before", "resumed")
            wrong = compared(folder, straight) if went_on else [outcome]
            lost.append(batches(folder) - total)
            outcomes[outcome if not wrong else f"WRONG: {', '.join(wrong)}"] += 1
            print(
                f"{number + 1:3d}  killed after {after:5.1f} s and {done:3d} batches at: {doing}  ->  {outcome}, "
                f"{lost[-1]} batches lost {wrong or ''}",
                flush=True,
            )
    failed = sum(number for outcome, number in outcomes.items() if outcome.startswith("WRONG"))
    summary = {
        "kills": given.kills,
        "wrong": failed,
        "outcomes": dict(outcomes),
        "batches of a run": total,
        "batches lost": {"median": median(lost), "most": max(lost)},
    }
    print(json.dumps(summary, indent=2))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    if sys.argv[1:2] == [COUNTED]:
        counted(sys.argv[2:])
    else:
        main()
