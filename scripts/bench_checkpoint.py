"""What a checkpoint costs beside the physical limit: as many bytes written and brought to the disk, in alternation.

python scripts/bench_checkpoint.py --rounds 5
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import median

import keras
import numpy as np

from finetune import checkpoint
from finetune.backbones import Bundled
from finetune.checkpoint import Checkpoint, values_of, variables_of
from finetune.standing import Standing


def networks() -> dict[str, keras.Model]:
    """Random weights cost as much as trained ones."""
    return {
        "bundled ResNet": Bundled().build(56).model,
        "MobileNetV2": keras.applications.MobileNetV2(weights=None),
        "ResNet-50": keras.applications.ResNet50(weights=None),
    }


def taken(model: keras.Model) -> Checkpoint:
    """In the worst case: the best epoch is an earlier one, and SGD has a momentum for every weight."""
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    model.optimizer.build(model.trainable_variables)
    weights = model.get_weights()
    standing = Standing(2, False, 1.0, 1, weights, weights, 4)
    return Checkpoint(
        0, None, standing, 4, values_of(variables_of(model)), values_of(model.optimizer.variables), [], [], {}
    )


def saving(folder: Path, found: Checkpoint) -> tuple[float, int]:
    begun = time.perf_counter()
    checkpoint.save(folder, found)
    seconds = time.perf_counter() - begun
    [file] = (folder / checkpoint.FOLDER).glob("*.npz")
    return seconds, file.stat().st_size


def writing(folder: Path, size: int) -> float:
    data = np.random.default_rng(0).bytes(size)
    begun = time.perf_counter()
    with (folder / "limit").open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print("| network | MB | seconds | times the writing alone (lowest to highest) |\n|---|---|---|---|")
    for name, model in networks().items():
        found, ours, ratios = taken(model), [], []
        with tempfile.TemporaryDirectory(dir=".") as place:
            for _ in range(rounds):
                seconds, size = saving(Path(place), found)
                ours.append(seconds)
                ratios.append(seconds / writing(Path(place), size))
        shown = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {name} | {size / 1e6:.0f} | {median(ours):.2f} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
