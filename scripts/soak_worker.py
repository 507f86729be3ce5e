"""The process of a soak that lives as long as the soak does: a call of the Python interface for each line it reads.

Started by soak.py. Writes a JSON line a call: what, seconds, its memory afterwards, what was wrong. Its memory alone:

    python scripts/soak_worker.py calls --prepare
    seq 0 127 | python scripts/soak_worker.py calls > calls/calls.jsonl
    python scripts/soak.py --summary calls/calls.jsonl --figure docs/memory.svg
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import keras
import numpy as np
from PIL import Image

import finetune
from finetune.recalibration.history import adopt
from finetune.recalibration.versions import newest
from finetune.recipe_file import load_recipe

TRAINED_EVERY = 8
"""Calls, of which one is a training: it takes as long as the others together."""


RECIPE = """
name: soak
backbone: {{source: saved, path: {place}/backbone.keras}}
data:
  source: tfds
  name: fashion_shift
  train: "train[:512]"
  validation: "validation[:100]"
  test: "test[:200]"
  calibration: "calibration[:300]"
  image_size: 28
  shift: {{kind: fog, severity: 3}}
batchnorm: {{policy: recalibrate}}
stages:
  - {{train: head, epochs: 3, learning_rate: 0.1}}
  - {{train: everything, epochs: 5, learning_rate: 0.005}}
tracking: {{uri: "sqlite:///{place}/mlflow.db"}}
"""
SITES = 6


def prepare(place: Path) -> None:
    """A backbone and its recipe, pictures of two cameras, a first run, and its model as version 1."""
    place.mkdir(parents=True, exist_ok=True)
    small_backbone().save(place / "backbone.keras")
    recipe = place / "recipe.yaml"
    recipe.write_text(RECIPE.format(place=place))
    for name, kind in (("fog", "fog"), ("dark", "contrast")):
        splits = load_recipe(recipe, [f"data.shift.kind={kind}"]).data.load(28, 0)
        for number, (image, label) in enumerate(splits.calibration.examples.as_numpy_iterator()):
            folder = place / name / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(image)).save(folder / f"{number}.png")
    result = finetune.fine_tune(recipe, ["name=first"], runs_folder=place / "runs")
    adopt(result.folder / "saved_model" / "1", place / "served")


def small_backbone() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((28, 28, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    for number in range(SITES):
        x = keras.layers.Conv2D(16, 3, strides=2 if number in (1, 3) else 1, padding="same")(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    return keras.Model(inputs, x)


def called(number: int, place: Path) -> tuple[str, list[str]]:
    """What was called, and what was wrong with what came back."""
    served, images = place / "served", finetune.ImageSource(folder=place / ("fog", "dark")[number // 2 % 2])
    if number % TRAINED_EVERY == TRAINED_EVERY - 1:
        overrides = [f"seed={number}", f"name=call{number}"]
        result = finetune.fine_tune(place / "recipe.yaml", overrides, runs_folder=place / "runs")
        return "fine_tune", [] if result.verified else [f"call {number}: the policy did not hold"]
    if number % 2:
        forced = finetune.Settings(force="a soak is about what is published")
        version = finetune.recalibrate(str(served), images, settings=forced).version
        return "recalibrate", [] if version and version.is_dir() else [
            f"call {number}: nothing was published"
        ]
    found = finetune.drift(str(served), images)
    return "drift", [] if np.isfinite(found.overall) else [f"call {number}: a drift of {found.overall}"]


def memory_mb() -> float:
    """What the process holds now."""
    with open("/proc/self/status") as lines:
        [kilobytes] = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
    return int(kilobytes) / 1024


def main() -> None:
    place = Path(sys.argv[1])
    if "--prepare" in sys.argv:
        if newest(place / "served") is None:
            prepare(place)
        return
    for line in sys.stdin:
        begun = time.time()
        try:
            what, findings = called(int(line), place)
        except BaseException as error:
            what, findings = "failed", [f"call {line.strip()}: {type(error).__name__}: {error}"]
        record = {
            "kind": "call",
            "call": int(line),
            "what": what,
            "at": begun,
            "seconds": time.time() - begun,
            "memory_mb": memory_mb(),
            "findings": findings,
        }
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
