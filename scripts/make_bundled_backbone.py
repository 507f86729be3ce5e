"""Train the backbone that ships with the package: a quarter-width ResNet-50 on Fashion-MNIST.

Writes resnet50_quarter.weights.h5 and its provenance resnet50_quarter.json into finetune/backbones/bundled/.
The 60,000 training images are those of Debian's package dataset-fashion-mnist (MIT; Xiao et al. 2017,
arXiv:1708.07747).
The 10,000 test images are read once, after the training, for the accuracy in the provenance.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import hashlib
import json
import os
import shlex
import sys
import time
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from finetune.backbones.bundled_weights import resnet50_quarter
from finetune.datasets.resize import to_square_uint8

CLASS_NAMES = (
    "t-shirt/top", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
IMAGE_SIZE = 56
BATCH_SIZE = 128
LEARNING_RATE = 0.2
WEIGHT_DECAY = 2e-3
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
BUNDLED = Path(__file__).resolve().parents[1] / "finetune" / "backbones" / "bundled"


def main() -> None:
    options = arguments()
    keras.utils.set_random_seed(options.seed)
    model = resnet50_quarter(len(CLASS_NAMES))
    began = time.monotonic()
    train(model, *read(options.data, "train"), epochs=options.epochs, seed=options.seed)
    seconds = time.monotonic() - began
    weights = options.out / "resnet50_quarter.weights.h5"
    save_weights(model, weights)
    accuracy = test_accuracy(model, *read(options.data, "t10k"))
    record = provenance(options, weights, model.count_params(), accuracy, seconds)
    weights.with_name("resnet50_quarter.json").write_text(json.dumps(record, indent=2) + "\n")
    size = weights.stat().st_size / 2**20
    print(f"{accuracy:.2%} of the 10,000 test images are right; {size:.1f} MiB of weights")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=DEBIAN, help="folder of the four IDX files")
    parser.add_argument("--out", type=Path, default=BUNDLED, help="where weights and provenance go")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def read(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (count, 28, 28, 1) and labels int32 (count,) of "train" or "t10k"."""
    # an IDX header is 16 bytes for images and 8 for labels
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28, 1)
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8).astype(np.int32)
    return images, labels


def train(model: keras.Model, images: np.ndarray, labels: np.ndarray, *, epochs: int, seed: int) -> None:
    """SGD with a warm-up of half an epoch and a cosine to zero, so that the last running statistics are of
    weights that hardly move any more."""
    steps = len(images) // BATCH_SIZE
    rate = keras.optimizers.schedules.CosineDecay(
        LEARNING_RATE / 10, epochs * steps - steps // 2, warmup_target=LEARNING_RATE, warmup_steps=steps // 2
    )
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images), seed=seed)
    batches = batches.batch(BATCH_SIZE, drop_remainder=True)
    # one map at a time: the flips are drawn in the order of the batches, so the seed decides them
    flipped = batches.map(
        lambda x, y: (tf.image.random_flip_left_right(to_square_uint8(x, IMAGE_SIZE), seed=seed), y)
    )
    model.fit(flipped.prefetch(2), epochs=epochs, verbose=2)


def save_weights(model: keras.Model, path: Path) -> None:
    # a compiled model would write its optimizer too, which is as large as the weights
    uncompiled = resnet50_quarter(len(CLASS_NAMES))
    uncompiled.set_weights(model.get_weights())
    uncompiled.save_weights(path)


def test_accuracy(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> float:
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(250)
    enlarged = batches.map(lambda x, y: (to_square_uint8(x, IMAGE_SIZE), y))
    return float(model.evaluate(enlarged, verbose=0, return_dict=True)["accuracy"])


def provenance(
    options: argparse.Namespace, weights: Path, parameters: int, accuracy: float, seconds: float
) -> dict[str, object]:
    return {
        "name": "resnet50_quarter",
        "architecture": "keras-cv ResNetBackbone, bottleneck blocks 3/4/6/3, filters 16/32/64/128",
        "parameters": parameters,
        "bn_sites": 53,
        "file": weights.name,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "licence": "MIT",
        "data": {
            "name": "Fashion-MNIST, 60,000 training images (Debian package dataset-fashion-mnist)",
            "licence": "MIT, Zalando SE",
            "source": "Xiao et al. 2017, arXiv:1708.07747",
            "images": "28 px grey, enlarged to 56 px RGB (bilinear, rounded), horizontal flips",
        },
        "class_names": CLASS_NAMES,
        "image_size": IMAGE_SIZE,
        "test_accuracy": round(accuracy, 4),
        "test_images": 10_000,
        "command": shlex.join(["uv", "run", "python", "scripts/make_bundled_backbone.py", *sys.argv[1:]]),
        "seed": options.seed,
        "epochs": options.epochs,
        "seconds": round(seconds),
        "machine": f"{os.cpu_count()} CPU cores",
        "date": datetime.date.today().isoformat(),
        "versions": {name: version(name) for name in ("tensorflow", "keras", "keras-cv", "numpy")},
    }


if __name__ == "__main__":
    main()
