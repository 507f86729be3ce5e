"""Faults, each planted in any functional Keras model that was healthy, and the finding that has to name it.

Used by the tests on small networks and by scripts/measure_doctor.py on real ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import layers

from finetune.batchnorm.measure import measure
from finetune.batchnorm.sites import BNSite, find_sites
from finetune.doctor.diagnosis import Plan


@dataclass
class Case:
    """What is examined. sites: of the model as it was before the fault."""

    model: keras.Model
    images: np.ndarray
    labels: np.ndarray | None = None
    sites: tuple[BNSite, ...] = ()
    given: dict[str, Any] = field(default_factory=dict)


Plant = Callable[[Case], None]
FAULTS: dict[str, tuple[str, Plant]] = {}
"""By name: the kind of the finding, and what plants the fault."""

NEED_IMAGES = {
    "changes-when-called",
    "depends-on-batch-mates",
    "random-predictions",
    "preprocessing",
    "shifted-data",
    "mode-gap",
    "stored-is-not-population",
}
"""Kinds of findings that no network gives away by itself."""


def healthy(model: keras.Model, images: np.ndarray) -> Case:
    """With the statistics of these images, and its own answers as their labels."""
    sites = find_sites(model, images[:1])
    measure(model, sites, lambda: [images])
    answers = np.asarray(model(images, training=False)).reshape(len(images), -1).argmax(axis=1)
    return Case(model, images, answers, sites)


def fault(name: str, kind: str) -> Callable[[Plant], Plant]:
    def added(plant: Plant) -> Plant:
        FAULTS[name] = (kind, plant)
        return plant

    return added


def change(case: Case, which: slice, mean: Any = None, variance: Any = None) -> None:
    """Statistics of those sites through functions of what they are."""
    for site in [site for site in case.sites if site.calls][which]:
        stored = site.statistics
        if mean is not None:
            site.layer.moving_mean.assign(mean(stored.mean, stored.variance))
        if variance is not None:
            site.layer.moving_variance.assign(variance(stored.mean, stored.variance))


def at_first(value: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The other channels as they are."""

    def changed(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
        out = variance.copy()
        out[0] = value
        return out

    return changed


@fault("NaN in one mean of the deepest site", "broken-statistics")
def nan_mean(case: Case) -> None:
    change(case, slice(-1, None), mean=lambda m, v: np.where(np.arange(len(m)) == 0, np.nan, m))


@fault("infinite variance at the first site", "broken-statistics")
def infinite_variance(case: Case) -> None:
    change(case, slice(0, 1), variance=at_first(np.inf))


@fault("negative variance in one channel", "broken-statistics")
def negative_variance(case: Case) -> None:
    change(case, slice(1, 2), variance=at_first(-0.1))


@fault("half of the channels of a site never vary", "dead-channels")
def dead(case: Case) -> None:
    change(case, slice(0, 1), variance=lambda m, v: np.where(np.arange(len(v)) % 2 == 0, 0.0, v))


@fault("epsilon far above the variance", "epsilon-dominates")
def large_epsilon(case: Case) -> None:
    for site in case.sites[-1:]:
        site.layer.epsilon = 100.0 * float(np.max(site.statistics.variance))


@fault("a site with the statistics of a new layer", "initial-statistics")
def never_measured(case: Case) -> None:
    change(case, slice(1, 2), mean=lambda m, v: 0 * m, variance=lambda m, v: 0 * v + 1)


@fault("all sites with the statistics of new layers", "initial-statistics")
def nothing_measured(case: Case) -> None:
    change(case, slice(None), mean=lambda m, v: 0 * m, variance=lambda m, v: 0 * v + 1)


@fault("statistics left behind by a slow momentum", "mode-gap")
def stale(case: Case) -> None:
    change(
        case,
        slice(None),
        mean=lambda m, v: m + 3 * np.sqrt(v + 1e-3),
        variance=lambda m, v: 0.05 * v + 1e-3,
    )


@fault("half-precision statistics", "half-precision-statistics")
def half(case: Case) -> None:
    last = layers.BatchNormalization(dtype="float16", name="half_bn")(case.model.output)
    case.model = keras.Model(case.model.input, last)
    case.model.layers[-1].moving_mean.assign(np.full(last.shape[-1], 0.1))


@fault("training=True baked into a functional graph", "baked-training-true")
def baked_true(case: Case) -> None:
    inputs = keras.Input(case.model.input_shape[1:])
    case.model = keras.Model(inputs, case.model(inputs, training=True))


@fault("a model that moves its statistics when it is called", "changes-when-called")
def moves_when_called(case: Case) -> None:
    baked_true(case)


@fault("training=False baked in and trusted", "baked-training-false")
def baked_false(case: Case) -> None:
    inputs = keras.Input(case.model.input_shape[1:])
    case.model = keras.Model(inputs, case.model(inputs, training=False))


class Stray(layers.Layer):
    """Hands training=True to what is inside, whatever it is told."""

    def __init__(self, inner: keras.Layer) -> None:
        super().__init__()
        self.inner = inner

    def call(self, inputs: Any, training: Any = None) -> Any:
        return self.inner(inputs, training=True)


def with_stray(case: Case) -> None:
    for layer in case.model._flatten_layers():
        if isinstance(layer, layers.Dropout):
            layer.rate = 0.0
    inputs = keras.Input(case.model.input_shape[1:])
    case.model = keras.Model(inputs, Stray(case.model)(inputs))


@fault("a stray training=True inside a custom layer moves statistics", "changes-when-called")
def stray_moves(case: Case) -> None:
    with_stray(case)


@fault("a stray training=True makes predictions depend on batch-mates", "depends-on-batch-mates")
def stray_mates(case: Case) -> None:
    with_stray(case)


@fault("dropout that is on in service", "random-predictions")
def dropout_on(case: Case) -> None:
    inputs = keras.Input(case.model.input_shape[1:])
    case.model = keras.Model(inputs, Stray(layers.Dropout(0.5))(case.model(inputs)))


def fitted(case: Case) -> None:
    """A step of training, with weights that stay."""
    case.model.compile(keras.optimizers.SGD(0.0), "mse")
    scores = np.asarray(case.model(case.images[:4], training=False))
    case.model.fit(case.images[:4], np.zeros_like(scores), batch_size=4, verbose=0)


@fault("frozen after compile and fit", "changed-after-compile")
def frozen_late(case: Case) -> None:
    fitted(case)
    case.model.trainable = False


@fault("unfrozen after compile and fit", "changed-after-compile")
def unfrozen_late(case: Case) -> None:
    for site in case.sites:
        site.freeze()
    fitted(case)
    case.sites[0].follow(None)


@fault("frozen in a loop over model.layers, which misses the backbone's sites", "missed-by-a-loop")
def frozen_in_a_loop(case: Case) -> None:
    inputs = keras.Input(case.model.input_shape[1:])
    scores = layers.Flatten()(case.model(inputs))
    case.model = keras.Model(inputs, layers.BatchNormalization(name="outer_bn")(scores))
    for layer in case.model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False


@fault("a shared site", "shared-site")
def shared(case: Case) -> None:
    inputs = keras.Input(case.model.input_shape[1:])
    both = layers.Add()([case.model(inputs), case.model(layers.Rescaling(0.5)(inputs))])
    case.model = keras.Model(inputs, both)


class WithIdle(layers.Layer):
    """Has a site that it never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = layers.BatchNormalization(name="idle")

    def build(self, shape: Any) -> None:
        self.idle.build(shape)

    def call(self, inputs: Any) -> Any:
        return inputs


@fault("a site that no forward pass reaches", "never-called")
def idle(case: Case) -> None:
    inputs = keras.Input(case.model.input_shape[1:])
    case.model = keras.Model(inputs, WithIdle()(case.model(inputs)))


@fault("one site with another momentum", "mixed-momentum")
def other_momentum(case: Case) -> None:
    case.sites[0].layer.momentum = 0.5


@fault("momentum .999 in a training of 100 steps", "short-horizon")
def slow(case: Case) -> None:
    for site in case.sites:
        site.follow(0.999)
    case.given["plan"] = Plan(steps=100)


@fault("a training with batches of one image", "few-positions")
def one_image(case: Case) -> None:
    flat = layers.BatchNormalization(name="flat_bn")(layers.Flatten()(case.model.output))
    case.model = keras.Model(case.model.input, flat)
    case.given["plan"] = Plan(batch_size=1)


@fault("images in another scale than those it was trained on", "preprocessing")
def other_scale(case: Case) -> None:
    case.images = case.images / 255.0 if np.abs(case.images).max() > 50 else case.images * 255.0


@fault("a camera with less contrast and more light", "shifted-data")
def other_camera(case: Case) -> None:
    middle, spread = case.images.mean(), case.images.std()
    case.images = (0.4 * (case.images - middle) + middle + spread).astype(np.float32)


@fault("a network trained under statistics that were held", "stored-is-not-population")
def trained_frozen(case: Case) -> None:
    change(case, slice(None), mean=lambda m, v: m + 2 * np.sqrt(v))
    case.given["reference_images"] = case.images


@fault("a network trained under statistics that were held, measured plainly", "mode-gap")
def held(case: Case) -> None:
    stale(case)
    scores = np.asarray(case.model(case.images, training=False)).reshape(len(case.images), -1)
    case.labels = scores.argmax(axis=1)
