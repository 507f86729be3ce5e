"""Measure the recipes for solar cells: trained on monocrystalline cells, served on polycrystalline ones.

Every run is that of `finetune run`, and its model is then measured anew by `finetune.recalibrate` on 512 of the
polycrystalline cells that neither trained nor test it, without labels and behind the gate. Balanced accuracy, in which
guessing has .5: on the cells of the training's kind, on the others, and on the others once measured anew. Each run is a
file in the folder --out, so that a measurement that was broken off goes on where it was.

    uv run python scripts/measure_elpv.py --seeds 5 --out measured_elpv
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

# as the command line does, read when TensorFlow is imported (finetune/cli/quiet.py)
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import tensorflow as tf

from finetune import ImageSource, Settings, recalibrate
from finetune.errors import GateError
from finetune.evaluation_run import evaluate_saved
from finetune.recipe_file import load_recipe
from finetune.run import run

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
POLICIES = ("freeze", "recalibrate", "retrain", "affine", "statistics")
TODAY = ImageSource(tfds="elpv:poly_train+poly_calibration")
COLUMNS = ("mono", "poly", "poly, measured anew")

Result = dict[str, Any]


def main() -> None:
    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    threads = max((os.cpu_count() or 1) // options.jobs, 1)
    print("| policy | learning rate | " + " | ".join(COLUMNS) + " |\n|---|---|---|---|---|")
    with ProcessPoolExecutor(options.jobs, get_context("spawn"), use_threads, (threads,)) as pool:
        waiting = {
            policy: [
                pool.submit(kept_or_measured, policy, seed, options.out) for seed in range(options.seeds)
            ]
            for policy in options.policies
        }
        for policy, futures in waiting.items():
            print(row(policy, [future.result() for future in futures]), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("measured_elpv"), help="folder of one JSON file a run"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    parser.add_argument("--policies", nargs="+", default=POLICIES)
    return parser.parse_args()


def use_threads(count: int) -> None:
    """Processes side by side share the cores instead of fighting over them."""
    tf.config.threading.set_intra_op_parallelism_threads(count)
    tf.config.threading.set_inter_op_parallelism_threads(count)


def kept_or_measured(policy: str, seed: int, out: Path) -> Result:
    file = out / f"{policy}-{seed}.json"
    if not file.exists():
        part = file.with_suffix(".part")
        part.write_text(json.dumps(measure(policy, seed, out)) + "\n")
        part.rename(file)
    kept: Result = json.loads(file.read_text())
    return kept


def measure(policy: str, seed: int, out: Path) -> Result:
    recipe = load_recipe(RECIPES / f"elpv_{policy}.yaml", [f"seed={seed}", "tracking.enabled=false"])
    done = run(recipe, runs_folder=out / "runs")
    anew, refused = measured_anew(done.folder / "model.keras", out / f"{policy}-{seed}")
    served = RECIPES / f"elpv_{policy}.yaml"
    return {
        "rate": recipe.stages[-1].learning_rate,
        "refused": refused,
        COLUMNS[0]: balanced(done.folder, served, "data.test=mono_test"),
        COLUMNS[1]: balanced(done.folder, served),
        COLUMNS[2]: balanced(anew / "model.keras", served),
    }


def measured_anew(model: Path, out: Path) -> tuple[Path, bool]:
    """The new version, and whether the gate would not have let it through."""
    try:
        done, refused = recalibrate(model, TODAY, out), False
    except GateError:
        done, refused = recalibrate(model, TODAY, out, Settings(force="to measure what was refused")), True
    if done.version is None:
        raise SystemExit(f"{model}: nothing was published")
    return done.version, refused


def balanced(model: Path, recipe: Path, *changes: str) -> float:
    return evaluate_saved(model, recipe=recipe, overrides=changes).metrics["balanced_accuracy"]


def row(policy: str, runs: Sequence[Result]) -> str:
    values = [words([each[column] for each in runs]) for column in COLUMNS]
    refused = sum(each["refused"] for each in runs)
    if refused:
        values[-1] += f" ({refused} of {len(runs)} refused by the gate)"
    return f"| `{policy}` | {runs[0]['rate']:g} | " + " | ".join(values) + " |"


def words(values: Sequence[float]) -> str:
    return f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
