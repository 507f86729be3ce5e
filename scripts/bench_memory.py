"""Whether layerwise recalibration of a deployed model stays within --memory: peak against budget, and what spills.

keras.applications.ResNet50, weights random, is exported as a SavedModel and measured layer by layer on made-up images,
each budget in a process of its own. The budget counts the activations that are kept between the sites, and nothing
else. What a network needs to run at all comes on top: a bare pass over the same batches, in a process of its own too,
shows how much that is. Added memory is the highest resident memory while images run, less that right before; pages of
the temporary file belong to the system's cache and do not count. `over` is what is left of it beyond the budget.

    uv run python scripts/bench_memory.py --memory 500MB 2GB --markdown
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# as the command line does, read when TensorFlow is imported (finetune/cli/quiet.py)
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from printed_table import print_table

from finetune.batchnorm.layerwise import Cost, layerwise
from finetune.batchnorm.targets import Targets
from finetune.cli.sizes import bytes_in
from finetune.formats.deployed import DeployedModel
from finetune.formats.opening import open_model

STATUS, RESET_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")
HEADINGS = ("side", "budget", "kept, at most", "spilled", "added memory", "over", "clock")


@dataclass(frozen=True)
class Photographs:
    """Made-up images, a batch at a time, the same ones each time they are read."""

    count: int
    batch: int
    size: int

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for start in range(0, self.count, self.batch):
            shape = (min(self.batch, self.count - start), self.size, self.size, 3)
            yield np.random.default_rng(start).uniform(0, 255, shape).astype(np.float32)


def main() -> None:
    options = arguments()
    if options.measure:
        print(json.dumps(measured(options, *options.measure)))
        return
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as folder:
        model = Path(folder, "model")
        shape = (options.size, options.size, 3)
        keras.applications.ResNet50(weights=None, input_shape=shape).export(model, verbose=False)
        rows = [in_own_process(options, model, budget) for budget in ("bare", *options.memory)]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print_table(HEADINGS, [cells(row) for row in rows], title(options), markdown=options.markdown)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--memory", nargs="+", default=["500MB", "2GB"], help="budgets")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--batch", type=int, default=64, help="as finetune recalibrate has it")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def in_own_process(options: argparse.Namespace, model: Path, budget: str) -> dict[str, Any]:
    print(f"{budget} ...", file=sys.stderr, flush=True)
    command = [sys.executable, __file__, "--measure", str(model), budget]
    for name in ("images", "size", "batch"):
        command += [f"--{name}", str(getattr(options, name))]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    row: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return row


def measured(options: argparse.Namespace, path: str, budget: str) -> dict[str, Any]:
    """One side: bytes, and seconds by the clock."""
    model = open_model(Path(path))
    images = Photographs(options.images, options.batch, options.size)
    memory = None if budget == "bare" else bytes_in(budget)
    begun = time.perf_counter()
    cost, added = with_added_memory(lambda: go(model, images, memory))
    return {
        "side": "bare pass" if memory is None else "layerwise",
        "budget": memory,
        "kept": cost.peak,
        "spilled": cost.spilled,
        "added": added,
        "clock": time.perf_counter() - begun,
    }


def go(model: DeployedModel, images: Photographs, memory: int | None) -> Cost:
    name = model.inputs[0].name
    if memory is None:
        for batch in images:
            model.predict({name: batch})
        return Cost(images.count, 0, 0)
    settle, epsilons = Targets(model.sites, 0.0, None).settle, [site.epsilon for site in model.sites]
    return layerwise(model.network(), images, settle, memory=memory, epsilons=epsilons)


def with_added_memory(action: Callable[[], Cost]) -> tuple[Cost, int]:
    """What it returns, and by how many bytes resident memory rose meanwhile, at most."""
    # from here on the peak is counted anew: see proc_pid_clear_refs(5)
    RESET_PEAK.write_text("5")
    before = resident("VmRSS")
    result = action()
    return result, resident("VmHWM") - before


def resident(name: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    megabytes = [f"{row[key] / 1e6:,.0f} MB" for key in ("kept", "spilled", "added")]
    budget = row["budget"]
    return (
        row["side"],
        "" if budget is None else f"{budget / 1e6:,.0f} MB",
        *megabytes,
        "" if budget is None else f"{(row['added'] - budget) / 1e6:,.0f} MB",
        f"{row['clock']:.0f} s",
    )


def title(options: argparse.Namespace) -> str:
    return (
        f"ResNet50, {options.images} images of {options.size} px in batches of {options.batch}; {os.cpu_count()} cores "
        f"({platform.machine()}), Keras {keras.__version__}, TensorFlow {tf.__version__}"
    )


if __name__ == "__main__":
    main()
