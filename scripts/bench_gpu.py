"""Images per second of every BN policy on an accelerator, in float32 and bfloat16, under TensorFlow and under JAX.

Each backend runs in a process of its own, `bench_gpu_backend.py`. `stock` is plain `model.fit` with everything
trainable; a policy trains the same network from the same weights, with the toolkit's fast sites where the backend has
them. All sides of one precision alternate in every round, and what traces and compiles is not counted. Images are
uint8 in memory, so a step holds their way to the device.

    uv run python scripts/bench_gpu.py --rounds 5

TensorFlow sees a GPU with the extra `gpu`, JAX with `uv run --with "jax[cuda12]"`. `--cpu` trains a tiny network for
two steps instead: whether the script works, and no measurement.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from finetune.policies import POLICIES

BACKENDS, PRECISIONS = ("tensorflow", "jax"), ("float32", "bfloat16")
NAMES = tuple(policy.model_fields["policy"].default for policy in POLICIES)
BACKEND_SCRIPT = Path(__file__).with_name("bench_gpu_backend.py")
SMOKE = {"network": "tiny", "size": 16, "batch": 8, "steps": 2, "rounds": 1}
NO_ACCELERATOR = 2
Answer = dict[str, Any]
"""What the process of one backend found: devices, versions and, where there is a device, rows."""


def main() -> int:
    options = arguments()
    answers = {backend: ask(backend, options) for backend in options.backends}
    blind = [backend for backend, answer in answers.items() if not answer["devices"]]
    if blind:
        print(f"no accelerator is seen by {' or '.join(blind)}; --cpu runs a smoke test", file=sys.stderr)
    if len(blind) == len(answers):
        return NO_ACCELERATOR
    seeing = {backend: answer for backend, answer in answers.items() if answer["devices"]}
    setting = {name: getattr(options, name) for name in SMOKE}
    made = {"date": datetime.date.today().isoformat(), "machine": machine(), "smoke": options.cpu}
    found = {**made, **setting, "backends": seeing}
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        # wide enough for every cell also where the output is a file
        Console(width=110).print(table(found))
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backends", nargs="+", default=BACKENDS, choices=BACKENDS)
    parser.add_argument("--policies", nargs="+", default=NAMES, choices=NAMES)
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--network", default="ResNet50", help="a name in keras.applications, or tiny")
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=30, help="steps of every side in every round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--cpu", action="store_true", help="smoke test: a tiny network on the CPU")
    options = parser.parse_args()
    if options.cpu:
        vars(options).update(SMOKE)
    return options


def ask(backend: str, options: argparse.Namespace) -> Answer:
    """What this backend finds; its own output is shown only where it fails."""
    settings = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if options.cpu:
        settings |= {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(BACKEND_SCRIPT), json.dumps(vars(options))]
    outcome = subprocess.run(
        command, env={**os.environ, **settings}, capture_output=True, text=True, check=False
    )
    if outcome.returncode:
        sys.exit(f"{outcome.stderr.rstrip()}\n{backend}: nothing was measured, see above")
    answer: Answer = json.loads(outcome.stdout.splitlines()[-1])
    return answer


def machine() -> str:
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores"


def table(found: dict[str, Any]) -> Table:
    kind = "smoke test, no measurement: " if found["smoke"] else ""
    title = (
        f"{kind}{found['network']}, batches of {found['batch']} images of {found['size']} px, {found['steps']} steps "
        f"in each of {found['rounds']} rounds; {found['machine']}; {found['date']}"
    )
    answers = found["backends"]
    caption = "\n".join(f"{b}: {', '.join(a['devices'])}; {a['versions']}" for b, a in answers.items())
    drawn = Table("backend", "precision", "policy", "images/s", "to stock fit", title=title, caption=caption)
    for backend, answer in answers.items():
        for row in answer["rows"]:
            low, high = row["spread"]
            ratio = f"{row['ratio']:.2f} x ({low:.2f} to {high:.2f})"
            rate = f"{row['images_per_second']:.0f}"
            drawn.add_row(backend, row["precision"], row["policy"], rate, ratio)
        drawn.add_section()
    return drawn


if __name__ == "__main__":
    sys.exit(main())
