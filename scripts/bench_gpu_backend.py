"""One backend's part of `bench_gpu.py`, which starts it: options as JSON in, devices and rows as JSON out.

Nothing is said of a policy whose promise did not hold on this device: running statistics, gamma and beta are compared
bit by bit before and after.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import median
from typing import Any

import keras
import numpy as np
from keras import layers

from finetune.batchnorm.fast_sites import fast_sites
from finetune.batchnorm.kept import affine_kept, statistics_kept
from finetune.batchnorm.measure import measure
from finetune.batchnorm.sites import find_sites
from finetune.batchnorm.timeline import Timeline, read
from finetune.policies import POLICIES, Policy

CLASSES, RATE, MOMENTUM = 10, 1e-3, 0.9
DTYPES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
"""As Keras calls them; weights and running statistics are float32 in both."""
STOCK = "stock"
Side = Callable[[], float]
"""Trains for one turn and says the images per second of it."""
Data = tuple[np.ndarray, np.ndarray]


def main() -> None:
    options = argparse.Namespace(**json.loads(sys.argv[1]))
    devices = ["CPU"] if options.cpu else accelerators()
    rows = [row for precision in options.precisions if devices for row in measured(precision, options)]
    print(json.dumps({"devices": devices, "versions": versions(), "rows": rows}))


def accelerators() -> list[str]:
    """What this backend computes on beside the CPU, by name."""
    if keras.backend.backend() == "jax":
        import jax

        return [device.device_kind for device in jax.devices() if device.platform != "cpu"]
    import tensorflow as tf

    found = [device for device in tf.config.list_physical_devices() if device.device_type in ("GPU", "TPU")]
    details = [tf.config.experimental.get_device_details(device) for device in found]
    return [detail.get("device_name", device.name) for device, detail in zip(found, details, strict=True)]


def versions() -> str:
    backend = sys.modules[keras.backend.backend()]
    return f"Keras {keras.__version__}, {backend.__name__} {backend.__version__}"


def measured(precision: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for `stock` and for every policy: images per second, and the ratio to `stock` in the same round."""
    keras.backend.clear_session()
    keras.config.set_dtype_policy(DTYPES[precision])
    with sides(options) as named:
        # the first round traces and compiles
        rounds = [{name: go() for name, go in named.items()} for _ in range(options.rounds + 1)][1:]
    rows = []
    for name in named:
        ratios = [row[name] / row[STOCK] for row in rounds]
        rows.append(
            {
                "precision": precision,
                "policy": name,
                "images_per_second": median(row[name] for row in rounds),
                "ratio": median(ratios),
                "spread": (min(ratios), max(ratios)),
            }
        )
    return rows


@contextmanager
def sides(options: argparse.Namespace) -> Iterator[dict[str, Side]]:
    """What is compared, by name; when the block is left every policy's promise is checked."""
    data = random_data(options)
    weights = network_weights(options, data[0][: options.batch])
    with ExitStack() as stack:
        named: dict[str, Side] = {STOCK: partial(turn, stock(options, weights), data, options.batch)}
        for policy in (kind.model_validate({}) for kind in POLICIES):
            if policy.policy in options.policies:
                model = stack.enter_context(under(policy, options, weights, data))
                named[policy.policy] = partial(turn, model, data, options.batch)
        yield named


def random_data(options: argparse.Namespace) -> Data:
    random = np.random.default_rng(0)
    count = options.batch * options.steps
    images = random.integers(0, 256, (count, options.size, options.size, 3), dtype=np.uint8)
    return images, random.integers(0, CLASSES, count)


def network(options: argparse.Namespace) -> keras.Model:
    inputs = keras.Input((options.size, options.size, 3), dtype="uint8")
    scaled = layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    if options.network == "tiny":
        features = tiny(scaled)
    else:
        build = getattr(keras.applications, options.network)
        features = build(weights=None, include_top=False, input_tensor=scaled, pooling="avg").output
    outputs = layers.Dense(CLASSES, activation="softmax", dtype="float32", name="head")(features)
    return keras.Model(inputs, outputs)


def tiny(images: Any) -> Any:
    """Two sites in depth."""
    first = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3)(images)))
    second = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3)(first)))
    return layers.GlobalAveragePooling2D()(second)


def network_weights(options: argparse.Namespace, images: np.ndarray) -> list[np.ndarray]:
    """Random, with the running statistics of these images, so that no activation of a deep network overflows."""
    model = network(options)
    measure(model, find_sites(model, images[:1]), lambda: [images], method="one_pass")
    weights: list[np.ndarray] = model.get_weights()
    return weights


def stock(options: argparse.Namespace, weights: list[np.ndarray]) -> keras.Model:
    model = network(options)
    model.set_weights(weights)
    return compiled(model)


def compiled(model: keras.Model) -> keras.Model:
    model.compile(keras.optimizers.SGD(RATE, momentum=MOMENTUM), "sparse_categorical_crossentropy")
    return model


@contextmanager
def under(
    policy: Policy, options: argparse.Namespace, weights: list[np.ndarray], data: Data
) -> Iterator[keras.Model]:
    """A network that this policy prepared, compiled, to be trained inside the block; its promise is checked after."""
    model = network(options)
    model.set_weights(weights)
    images = data[0][: options.batch]
    sites = find_sites(model, images[:1])
    pretrained = read(sites)
    measurement = policy.start(model, sites, lambda limit=None: [images[:limit]])
    started = read(sites)
    policy.prepare(sites, trained=sites, steps_per_epoch=options.steps)
    with fast_sites(model, sites):
        yield compiled(model)
    trained, paths = read(sites), frozenset(site.path for site in sites)
    timeline = Timeline(pretrained, started, trained, trained, measurement, None, paths)
    promises = policy.promises(sites)
    checks = (*statistics_kept(promises, timeline), *affine_kept(promises, timeline))
    broken = [f"{policy.policy}: {check.name}: {check.detail}" for check in checks if not check.passed]
    if broken:
        raise SystemExit("\n".join(broken))


def turn(model: keras.Model, data: Data, batch: int) -> float:
    """Images per second of the second of two epochs; the first opens the data and fills the pipeline."""
    images, labels = data
    clock = SecondEpoch()
    history = model.fit(
        images, labels, batch_size=batch, epochs=2, shuffle=False, verbose=0, callbacks=[clock]
    )
    if not math.isfinite(loss := history.history["loss"][-1]):
        raise SystemExit(f"the loss is {loss}: nothing that is measured now would count")
    return len(images) / clock.seconds


class SecondEpoch(keras.callbacks.Callback):
    """How long the second epoch took, with the work that the device still had to do."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = self.seconds = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.begun = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        # steps are only handed to the device; reading the loss waits for the last of them
        float((logs or {})["loss"])
        self.seconds = time.perf_counter() - self.begun


if __name__ == "__main__":
    main()
