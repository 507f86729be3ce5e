"""Images per second while training ResNet-50: stock Keras `fit`, the same `fit` inside `fast_sites`, and PyTorch.

All sides alternate in one process: the same network from the same weights, the same images, SGD with momentum,
everything but what the policy fixes trains. `no sites` is stock Keras with sites that hand on what they get: what would
be left if BN cost nothing, and so how much faster than stock a faster site can make a training at most. PyTorch runs
its eager loop in channels-last layout and is left out where it is not installed; before anything is timed its outputs
are compared with Keras'. The first round of every side traces and warms up and is not counted. TensorFlow runs with
oneDNN unless TF_ENABLE_ONEDNN_OPTS=0 is set: it leaves it off on processors without AVX-512, where the gradients of its
own convolutions then take most of the time.

    uv run --with torch==2.13.0 python scripts/bench_training.py --rounds 7
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

# read when TensorFlow is imported
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import numpy as np
import tensorflow as tf
from keras.layers import BatchNormalization

from finetune.batchnorm.fast_sites import fast_sites
from finetune.batchnorm.sites import BNSite, SiteCall, find_sites, replaced_calls
from finetune.datasets.reading_ahead import read_ahead
from finetune.policies import Affine, Freeze, Retrain, Statistics

CLASSES, RATE, MOMENTUM = 10, 1e-4, 0.9
POLICIES = {"retrain": Retrain(), "freeze": Freeze(), "affine": Affine(), "statistics": Statistics()}
TORCH = importlib.util.find_spec("torch") is not None
Side = Callable[[], float]
"""Trains one step on every batch and says the mean loss."""


def main() -> None:
    options = arguments()
    print(machine())
    data = random_data(options)
    weights = network(options.size, data[0][0])
    for policy in options.policies:
        with sides(policy, weights, data) as named:
            report(policy, options, timed(named, options))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="steps of every side in every round")
    parser.add_argument("--policies", nargs="+", default=["retrain", "freeze"], choices=POLICIES)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=96, help="pixels a side")
    return parser.parse_args()


def machine() -> str:
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    onednn = "with" if os.environ["TF_ENABLE_ONEDNN_OPTS"] == "1" else "without"
    versions = f"Keras {keras.__version__}, TensorFlow {tf.__version__} {onednn} oneDNN"
    if TORCH:
        from torch_resnet50 import version

        versions += f", {version()}"
    devices = [device.name for device in tf.config.list_logical_devices("GPU")] or ["no GPU"]
    return f"{name}, {os.cpu_count()} cores, {', '.join(devices)}; {versions}"


def random_data(options: argparse.Namespace) -> list[tuple[np.ndarray, np.ndarray]]:
    """One batch a step, each made beforehand."""
    random = np.random.default_rng(0)
    shape = (options.batch, options.size, options.size, 3)
    return [
        (random.normal(0, 1, shape).astype(np.float32), random.integers(0, CLASSES, options.batch))
        for _ in range(options.steps)
    ]


def network(size: int, images: np.ndarray | None = None) -> keras.Model:
    """ResNet-50; with images, its running statistics are those of this batch, so that no activation overflows."""
    keras.utils.set_random_seed(0)
    backbone = keras.applications.ResNet50(
        weights=None, include_top=False, input_shape=(size, size, 3), pooling="avg"
    )
    outputs = keras.layers.Dense(CLASSES, activation="softmax", name="head")(backbone.output)
    model = keras.Model(backbone.input, outputs)
    if images is not None:
        layers = [layer for layer in model.layers if isinstance(layer, BatchNormalization)]
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.momentum = 0.0
        model(images, training=True)
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    return model


@contextmanager
def sides(policy: str, weights: keras.Model, data: list[Any]) -> Iterator[dict[str, Side]]:
    """What is compared, by name; the toolkit's side keeps its fast sites inside the block."""
    stock, _ = prepared(policy, weights, data)
    ours, our_sites = prepared(policy, weights, data)
    bare, gone = prepared("freeze", weights, data)
    named = {"keras": keras_side(stock, data), "no sites": keras_side(bare, data)}
    with fast_sites(ours, our_sites), replaced_calls([site.layer for site in gone], handed_on):
        named["finetune"] = keras_side(ours, data)
        if TORCH and policy in ("retrain", "freeze"):
            from torch_resnet50 import torch_side

            named["torch"] = torch_side(policy, weights, data, RATE, MOMENTUM)
        yield named


def handed_on(layer: BatchNormalization, original: SiteCall) -> SiteCall:
    return lambda inputs, training=None, mask=None: inputs


def prepared(policy: str, weights: keras.Model, data: list[Any]) -> tuple[keras.Model, Sequence[BNSite]]:
    """A copy of the network under the policy; its sites."""
    images = data[0][0]
    model = network(images.shape[1])
    model.set_weights(weights.get_weights())
    sites = find_sites(model, images[:1])
    POLICIES[policy].prepare(sites, trained=sites, steps_per_epoch=len(data))
    return model, sites


def keras_side(model: keras.Model, data: list[Any]) -> Side:
    """Keras' `fit` over the batches as they are, compiled as the trainer compiles."""
    model.compile(
        keras.optimizers.SGD(RATE, momentum=MOMENTUM), "sparse_categorical_crossentropy", jit_compile="auto"
    )
    images, labels = (np.concatenate(parts) for parts in zip(*data, strict=True))
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(len(data[0][0])).cache()
    # autotuned, a fit waits up to a second for nothing when it ends (tests/datasets/test_reading_ahead.py)
    batches = read_ahead(batches)
    return lambda: float(model.fit(batches, verbose=0, shuffle=False).history["loss"][0])


def timed(named: dict[str, Side], options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of every round but the first, by side; every round begins with another side."""
    names = list(named)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(options.rounds + 1):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            begun = time.perf_counter()
            loss = named[name]()
            if number:
                seconds[name].append(time.perf_counter() - begun)
            if not math.isfinite(loss):
                raise SystemExit(f"{name}: the loss became {loss}; what was timed is no training")
    return seconds


def report(policy: str, options: argparse.Namespace, seconds: dict[str, list[float]]) -> None:
    """Images per second of every side, and how many times as fast as the others the toolkit was, round by round."""
    images = options.steps * options.batch
    print(f"{policy}, ResNet-50, {options.size} px, batch {options.batch}, {options.rounds} rounds:")
    for name, taken in seconds.items():
        print(f"  {name:<8} {spread([images / each for each in taken], '.2f')} images/s")
    ours = seconds["finetune"]
    for name in (name for name in seconds if name != "finetune"):
        ratios = [other / own for other, own in zip(seconds[name], ours, strict=True)]
        print(f"  finetune / {name}: {spread(ratios, '.3f')}")
    ceiling = [stock / bare for stock, bare in zip(seconds["keras"], seconds["no sites"], strict=True)]
    print(f"  no sites / keras: {spread(ceiling, '.3f')}")


def spread(values: Sequence[float], form: str) -> str:
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    main()
