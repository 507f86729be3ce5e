"""Measure the README's table: the bundled backbone on fashion_shift, three shifts x all policies x seeds.

Each policy runs at its own learning rate, since rates do not carry over between policies: all rates of a small grid on
the first seed, the best two on the second as well, and the one with the lower mean validation loss on all seeds. Every
single run is a file in the folder --out, so that a measurement that was broken off goes on where it was. What diverged
is counted in the table.

    uv run python scripts/measure_policies.py --out measured
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import keras
import tensorflow as tf

from finetune.datasets.base import Splits
from finetune.datasets.batches import evaluation_batches
from finetune.errors import DivergedError
from finetune.evaluate import evaluate
from finetune.prepared import build
from finetune.progress import Progress
from finetune.recipe import Recipe
from finetune.recipe_file import load_recipe
from finetune.run import prove
from finetune.stopwatch import Stopwatch
from finetune.tracking import Tracker
from finetune.training import EVALUATION_BATCH, Running, train

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
POLICIES = ("freeze", "recalibrate", "retrain")
SHIFTS = ("fog", "contrast", "noise")
RATES = (0.003, 0.01, 0.03)

Result = dict[str, Any]


def main() -> None:
    options = arguments()
    options.out.mkdir(exist_ok=True)
    threads = max((os.cpu_count() or 1) // options.jobs, 1)
    with ProcessPoolExecutor(options.jobs, get_context("spawn"), use_threads, (threads,)) as pool:
        pretrained = {kind: pool.submit(untouched, kind) for kind in options.shifts}
        cells = {
            (kind, policy): pool.submit(measure_cell, policy, kind, options.rates, options.seeds, options.out)
            for kind in options.shifts
            for policy in options.policies
        }
        print(
            "| camera change, severity 3 | policy | learning rate | test accuracy | seconds |\n|---|---|---|---|---|"
        )
        for kind in options.shifts:
            print(
                f"| {kind} | (pretrained, nothing trained) | | {pretrained[kind].result():.3f} | |",
                flush=True,
            )
            for policy in options.policies:
                print(row(policy, cells[kind, policy].result()), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("measured"), help="folder of one JSON file a run")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rates", nargs="+", type=float, default=RATES)
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    parser.add_argument("--shifts", nargs="+", default=SHIFTS)
    parser.add_argument("--policies", nargs="+", default=POLICIES)
    return parser.parse_args()


def use_threads(count: int) -> None:
    """Processes side by side share the cores instead of fighting over them."""
    tf.config.threading.set_intra_op_parallelism_threads(count)
    tf.config.threading.set_inter_op_parallelism_threads(count)


def measure_cell(policy: str, kind: str, rates: Sequence[float], seeds: int, out: Path) -> list[Result]:
    """All seeds at the rate that was chosen on validation."""

    def run(rate: float, seed: int) -> Result:
        return kept_or_measured(policy, kind, rate, seed, out)

    def loss(rate: float, upto: int) -> float:
        return fmean(run(rate, seed).get("validation_loss", float("inf")) for seed in range(upto))

    best_two = sorted(rates, key=lambda rate: loss(rate, 1))[:2]
    best = min(best_two, key=lambda rate: loss(rate, 2))
    return [run(best, seed) for seed in range(seeds)]


def kept_or_measured(policy: str, kind: str, rate: float, seed: int, out: Path) -> Result:
    file = out / f"{kind}-{policy}-{rate:g}-{seed}.json"
    if not file.exists():
        part = file.with_suffix(".part")
        part.write_text(json.dumps(measure(policy, kind, rate, seed)) + "\n")
        part.rename(file)
    kept: Result = json.loads(file.read_text())
    return kept


def measure(policy: str, kind: str, rate: float, seed: int) -> Result:
    """One training, proven and tested; without report, export and MLflow."""
    chosen, splits = recipe(policy, kind, rate, seed), load(kind)
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        built, trainee = build(chosen, splits)
        tracking = Tracker(None, print)
        running = Running(chosen, splits, built, trainee, Path(folder), tracking, Progress(), Stopwatch())
        try:
            trained = train(running)
        except DivergedError as error:
            return {"rate": rate, "seed": seed, "diverged": str(error).split(";")[0]}
    broken = [check.name for check in prove(running, trained) if not check.passed]
    if broken:
        raise SystemExit(f"{policy} on {kind} at {rate}, seed {seed}: the proof failed: {broken}")
    test = evaluate(trainee.model, evaluation_batches(splits.test, EVALUATION_BATCH), len(splits.class_names))
    return {
        "rate": rate,
        "seed": seed,
        "accuracy": test.metrics["accuracy"],
        "validation_loss": min(e.metrics["validation/loss"] for e in running.epochs if e.stage == 2),
        "seconds": time.perf_counter() - begun,
        "kept": trained.finish.kept,
    }


def recipe(policy: str, kind: str, rate: float, seed: int) -> Recipe:
    overrides = [f"seed={seed}", f"data.shift.kind={kind}", f"stages.1.learning_rate={rate}"]
    return load_recipe(RECIPES / f"resnet_{policy}.yaml", overrides)


@functools.cache
def load(kind: str) -> Splits:
    """Loaded once a shift: which image is in which split does not depend on the seed."""
    chosen = recipe("freeze", kind, RATES[0], 0)
    return chosen.data.load(chosen.backbone.default_image_size, chosen.seed)


def untouched(kind: str) -> float:
    """Test accuracy of the pretrained network with its own head, before anything is changed."""
    splits = load(kind)
    chosen = load_recipe(RECIPES / "resnet_freeze.yaml", ["head.weights=pretrained"])
    _, trainee = build(chosen, splits)
    batches = evaluation_batches(splits.test, EVALUATION_BATCH)
    return evaluate(trainee.model, batches, len(splits.class_names)).metrics["accuracy"]


def row(policy: str, runs: list[Result]) -> str:
    """One line of the table: mean and standard deviation over the seeds that did not diverge."""
    good = [run for run in runs if "diverged" not in run]
    accuracies = [run["accuracy"] for run in good]
    value = f"{fmean(accuracies):.3f} ± {stdev(accuracies):.3f}" if len(good) > 1 else "-"
    lost = f" ({len(runs) - len(good)} of {len(runs)} diverged)" if len(good) < len(runs) else ""
    seconds = fmean(run["seconds"] for run in good) if good else float("nan")
    return f"| | `{policy}` | {runs[0]['rate']:g} | {value}{lost} | {seconds:.0f} |"


if __name__ == "__main__":
    main()
