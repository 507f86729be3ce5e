"""Kill one worker of a training with SIGKILL: how long the others take to end, what they say, and how it goes on.

    python scripts/measure_worker_loss.py recipes/resnet_retrain.yaml --workers 2 \\
        --set "data.train=train[:512]" --set stages.0.epochs=1 --set stages.1.epochs=3

All workers run on this machine, over the loopback. The last one is killed after its first checkpoint, then the chief.
Each time the others must end by themselves with exit code 1 within 30 s, all are started again with --resume, and the
weights are compared with those of the same workers without a break.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import ExitStack
from pathlib import Path

import h5py

FINETUNE = [sys.executable, "-m", "finetune", "run"]
PATIENCE = 30.0


class Workers:
    """`finetune run` in so many processes, in one folder."""

    def __init__(self, folder: Path, count: int, arguments: list[str]) -> None:
        self.says = [folder / f"worker-{place}.txt" for place in range(count)]
        self.processes = []
        addresses = free_addresses(count)
        for place, says in enumerate(self.says):
            told = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": place}}
            environment = os.environ | {"TF_CONFIG": json.dumps(told), "CUDA_VISIBLE_DEVICES": "-1"}
            with says.open("w") as file:
                self.processes.append(
                    subprocess.Popen(
                        [*FINETUNE, *arguments],
                        cwd=folder,
                        env=environment,
                        stderr=file,
                        stdout=subprocess.DEVNULL,
                    )
                )

    def ended(self, seconds: float, but: int | None = None) -> list[int | None]:
        """Exit codes of all but one; None where it did not end in that time."""
        until, codes = time.monotonic() + seconds, []
        for place, process in enumerate(self.processes):
            if place == but:
                continue
            try:
                codes.append(process.wait(max(0.0, until - time.monotonic())))
            except subprocess.TimeoutExpired:
                codes.append(None)
        return codes

    def last_lines(self, but: int | None = None) -> list[str]:
        said = [says.read_text().strip().splitlines() for place, says in enumerate(self.says) if place != but]
        return [lines[-1] if lines else "" for lines in said]


def free_addresses(count: int) -> list[str]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


def whole(folder: Path, count: int, arguments: list[str]) -> None:
    workers = Workers(folder, count, arguments)
    codes = workers.ended(3600)
    if set(codes) != {0}:
        sys.exit(f"workers without a break ended with {codes}: {workers.last_lines()}")


def killed(folder: Path, count: int, arguments: list[str], victim: int) -> dict[str, object]:
    """Once there is a checkpoint. Seconds until the others ended, their exit codes and last lines."""
    workers = Workers(folder, count, arguments)
    while not list(folder.glob("runs/*/checkpoints/*.npz")):
        if any(process.poll() is not None for process in workers.processes):
            sys.exit(f"it ended before there was a checkpoint: {workers.last_lines()}")
        time.sleep(0.05)
    workers.processes[victim].send_signal(signal.SIGKILL)
    begun = time.monotonic()
    codes = workers.ended(4 * PATIENCE, but=victim)
    seconds = time.monotonic() - begun
    for process in workers.processes:
        process.kill()
    return {"seconds": round(seconds, 1), "codes": codes, "said": workers.last_lines(but=victim)}


def weights(folder: Path) -> dict[str, bytes]:
    """Of the model that the run left, without its optimizer."""
    [run] = folder.glob("runs/*")
    arrays: dict[str, bytes] = {}
    with zipfile.ZipFile(run / "model.keras") as archive:
        file = h5py.File(io.BytesIO(archive.read("model.weights.h5")))
    file.visititems(
        lambda name, item: arrays.update({name: item[()].tobytes()}) if hasattr(item, "dtype") else None
    )
    return {name: value for name, value in arrays.items() if not name.startswith("optimizer")}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    given = parser.parse_args()
    overrides = [*given.overrides, "distribute.strategy=multi_worker"]
    arguments = [str(given.recipe.resolve()), *(word for each in overrides for word in ("--set", each))]
    wrong = 0
    with tempfile.TemporaryDirectory() as place:
        straight = Path(place, "straight")
        straight.mkdir()
        whole(straight, given.workers, arguments)
        for victim in (given.workers - 1, 0):
            folder = Path(place, f"without-{victim}")
            folder.mkdir()
            outcome = killed(folder, given.workers, arguments, victim)
            [run] = folder.glob("runs/*")
            whole(folder, given.workers, ["--resume", str(run.relative_to(folder))])
            same = weights(straight) == weights(folder)
            held = outcome["seconds"] <= PATIENCE and set(outcome["codes"]) == {1} and same
            wrong += not held
            print(
                json.dumps({"killed": victim + 1, **outcome, "resumed and the same": same}, indent=2),
                flush=True,
            )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
