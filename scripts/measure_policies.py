"""Measure the README's table: the bundled backbone on fashion_shift, three shifts x all policies x seeds.

Each policy runs at its own learning rate, the one of a small grid with the lowest validation loss on the
first seed: rates do not carry over between policies. What diverges is listed, not hidden.

    uv run python scripts/measure_policies.py --out measured.json
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
import numpy as np
import tensorflow as tf

from finetune.datasets.base import Splits
from finetune.datasets.batches import evaluation_batches
from finetune.errors import DivergedError
from finetune.evaluate import evaluate
from finetune.progress import Progress
from finetune.recipe import Recipe
from finetune.recipe_file import load_recipe
from finetune.run import EVALUATION_BATCH, Running, build, prove, train
from finetune.stopwatch import Stopwatch
from finetune.tracking import Tracker

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
POLICIES = ("freeze", "recalibrate", "retrain")
SHIFTS = ("fog", "contrast", "noise")
RATES = (0.003, 0.01, 0.03)


def main() -> None:
    options = arguments()
    cells = [(policy, kind, options.seeds) for kind in options.shifts for policy in options.policies]
    measured: dict[str, Any] = {"seeds": options.seeds, "rates": RATES, "cells": []}
    threads = max((os.cpu_count() or 1) // options.jobs, 1)
    with ProcessPoolExecutor(options.jobs, get_context("spawn"), use_threads, (threads,)) as pool:
        untouched_later = {kind: pool.submit(untouched, kind) for kind in options.shifts}
        for cell in pool.map(measure_cell, *zip(*cells, strict=True)):
            measured["cells"].append(cell)
            print(json.dumps({key: value for key, value in cell.items() if key != "runs"}), flush=True)
            measured["untouched"] = {kind: u.result() for kind, u in untouched_later.items()}
            options.out.write_text(json.dumps(measured, indent=1) + "\n")
    print(table(measured))


def use_threads(count: int) -> None:
    """Processes side by side share the cores instead of fighting over them."""
    tf.config.threading.set_intra_op_parallelism_threads(count)
    tf.config.threading.set_inter_op_parallelism_threads(count)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("measured.json"), help="every single run, as JSON")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    parser.add_argument("--shifts", nargs="+", default=SHIFTS)
    parser.add_argument("--policies", nargs="+", default=POLICIES)
    return parser.parse_args()


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


def measure_cell(policy: str, kind: str, seeds: int) -> dict[str, Any]:
    """The best rate on validation with seed 0, then all seeds at it."""
    tried = [measure(policy, kind, rate, 0) for rate in RATES]
    finished = [run for run in tried if "diverged" not in run]
    best = min(finished, key=lambda run: run["validation_loss"])
    runs = [best, *(measure(policy, kind, best["rate"], seed) for seed in range(1, seeds))]
    good = [run for run in runs if "diverged" not in run]
    accuracies = [run["accuracy"] for run in good]
    return {
        "policy": policy,
        "shift": kind,
        "rate": best["rate"],
        "accuracy": fmean(accuracies),
        "spread": stdev(accuracies),
        "seconds": fmean(run["seconds"] for run in good),
        "diverged": len(runs) - len(good),
        "diverged_rates": [run["rate"] for run in tried if "diverged" in run],
        "runs": [*tried, *runs[1:]],
    }


def measure(policy: str, kind: str, rate: float, seed: int) -> dict[str, Any]:
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


def table(measured: dict[str, Any]) -> str:
    """The README's table, in Markdown."""
    lines = [
        "| camera change, severity 3 | policy | learning rate | test accuracy | seconds |",
        "|---|---|---|---|---|",
    ]
    for kind, accuracy in measured["untouched"].items():
        lines.append(f"| {kind} | (pretrained, nothing trained) | | {accuracy:.3f} | |")
        cells: Sequence[dict[str, Any]] = [cell for cell in measured["cells"] if cell["shift"] == kind]
        best = np.argmax([cell["accuracy"] for cell in cells])
        for place, cell in enumerate(cells):
            mark = "**" if place == best else ""
            value = f"{mark}{cell['accuracy']:.3f}{mark} ± {cell['spread']:.3f}"
            lines.append(f"| | `{cell['policy']}` | {cell['rate']:g} | {value} | {cell['seconds']:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
