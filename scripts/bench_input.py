"""How long a training step waits for its images, beside Keras' own reader of image folders.

JPEG photographs of 640 x 427 px (crops of the two that scikit-learn ships) in one folder a class, read at the side of
the network. Both sides alternate; each trains one epoch that reads files and one after it. What is counted is the time
between the end of a step and the arrival of the next batch, as a share of the epoch; beside it stand the images a
second that the input delivers to a network that takes no time.

    uv run python scripts/bench_input.py --rounds 3
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# as the command line does, read when TensorFlow is imported (finetune/cli/quiet.py)
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import numpy as np
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_images

from finetune.backbones import EfficientNetLite
from finetune.datasets import ImageFolder
from finetune.datasets.batches import training_batches

BATCH = 32
WIDTH, HEIGHT = 640, 427
Step = Callable[[Any, Any], object]


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder), options.images)
        sides = {"finetune": ours, "keras": theirs}
        found: dict[tuple[str, str], list[float]] = {}
        step = training_step()
        for number in range(options.rounds):
            for name, open_batches in sides.items():
                for epoch, share in zip(
                    ("first", "later"), waits(open_batches(Path(folder)), step), strict=True
                ):
                    found.setdefault((name, f"waits, {epoch} epoch"), []).append(share)
                for epoch, rate in zip(("first", "later"), rates(open_batches(Path(folder))), strict=True):
                    found.setdefault((name, f"images/s alone, {epoch} epoch"), []).append(rate)
            print(f"round {number + 1} of {options.rounds}", flush=True)
    for (name, what), values in sorted(found.items(), key=lambda item: item[0][::-1]):
        shown = "{:.1%}" if what.startswith("waits") else "{:.0f}"
        low, middle, high = (shown.format(value) for value in (min(values), median(values), max(values)))
        print(f"{what:30} {name:9} {middle} ({low} to {high})")


def ours(folder: Path) -> tf.data.Dataset:
    dataset = ImageFolder(path=str(folder), batch_size=BATCH)
    return training_batches(dataset.load(224, 0).train, dataset, 0)


def theirs(folder: Path) -> tf.data.Dataset:
    """As Keras' guides have it."""
    read = keras.utils.image_dataset_from_directory(
        folder / "train", image_size=(224, 224), batch_size=BATCH, seed=0, verbose=False
    )
    return read.prefetch(tf.data.AUTOTUNE)


def training_step() -> Step:
    backbone = EfficientNetLite(weights=None).build(224)
    images = keras.Input((224, 224, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(backbone.model(backbone.preprocess(images)))
    model = keras.Model(images, keras.layers.Dense(2, activation="softmax")(pooled))
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.train_on_batch(np.zeros((BATCH, 224, 224, 3), np.uint8), np.zeros(BATCH, np.int32))
    return model.train_on_batch


def waits(batches: Iterable[Any], step: Step) -> tuple[float, float]:
    """Of two epochs, the share that was spent between the end of a step and the arrival of the next batch."""
    return one_epoch(batches, step)[0], one_epoch(batches, step)[0]


def rates(batches: Iterable[Any]) -> tuple[float, float]:
    """Of two epochs, images a second without any step."""
    return one_epoch(batches, lambda images, labels: None)[1], one_epoch(
        batches, lambda images, labels: None
    )[1]


def one_epoch(batches: Iterable[Any], step: Step) -> tuple[float, float]:
    waited, count, begun = 0.0, 0, time.perf_counter()
    source = iter(batches)
    while True:
        asked = time.perf_counter()
        batch = next(source, None)
        waited += time.perf_counter() - asked
        if batch is None:
            break
        step(*batch)
        count += len(batch[1])
    took = time.perf_counter() - begun
    return waited / took, count / took


def write_photographs(folder: Path, count: int) -> None:
    photographs, random = load_sample_images().images, np.random.default_rng(0)
    for number in range(count):
        label = number % 2
        share = random.uniform(0.6, 1.0)
        width, height = int(share * WIDTH), int(share * HEIGHT)
        left, top = random.integers(0, WIDTH - width + 1), random.integers(0, HEIGHT - height + 1)
        crop = Image.fromarray(photographs[label]).crop((left, top, left + width, top + height))
        split = ("test", "validation")[number // 2 % 2] if number >= 0.8 * count else "train"
        place = folder / split / ("china", "flower")[label]
        place.mkdir(parents=True, exist_ok=True)
        crop.resize((WIDTH, HEIGHT)).save(place / f"{number:04d}.jpg", quality=90)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=480)
    return parser.parse_args()


if __name__ == "__main__":
    main()
