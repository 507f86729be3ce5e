"""Running statistics measured over a calibration set instead of averaged during training.

Two definitions:

- `one_pass`: every site normalises with the batch's own moments, which are pooled over the batches
  (precise BN: Wu & Johnson 2021, arXiv:2105.07576; here by the law of total variance, not by averaging
  variances). From the second site on the result depends on how the images are batched.
- `input_moments`: the moments of every site's input under the model as it is, running statistics
  included. Changes nothing; how the images are batched does not matter.

Both run the model in inference mode: dropout, stochastic depth and augmentation layers stay off, and
only the sites themselves are replaced for the time of the pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops
from keras.layers import BatchNormalization

from finetune.batchnorm.moments import PopulationMoments, RunningStatistics
from finetune.batchnorm.shift import distance
from finetune.batchnorm.sites import BNSite, SiteCall, replaced_calls

Batches = Iterable[Any]
Moments = tuple[Any, Any, Any]
"""count, mean and biased variance of one batch at one site, as tensors."""


@dataclass(frozen=True)
class Measurement:
    """Running statistics that were measured and put in force.

    images: size of the calibration set. residual: largest distance (finetune.batchnorm.shift.distance)
    between what is stored and a fresh measurement right after; a few float32 roundings when all is well.
    prior: how many images the earlier statistics counted as.
    """

    images: int
    residual: float
    prior: float = 0.0


def measure_one_pass(
    model: keras.Model, sites: Sequence[BNSite], open_batches: Callable[[], Batches], prior: float = 0.0
) -> Measurement:
    """Measure the running statistics of all called sites in one pass and put them in force.

    open_batches: opens the calibration images, (batch, height, width, channels); it is called twice,
        the second time to check what was stored.
    prior: N0, the number of images that the earlier statistics count as (Schneider et al. 2020,
        arXiv:2006.16971): the new ones weigh n / (N0 + n). 0 replaces them.
    Raises ValueError where there is no image.
    """
    measured, images = one_pass(model, sites, open_batches())
    called = [site for site in sites if site.calls]
    targets = [
        _with_prior(site.statistics, moments.statistics(), prior, images)
        for site, moments in zip(called, measured, strict=True)
    ]
    earlier = [site.statistics for site in called]
    for site, target in zip(called, targets, strict=True):
        site.store(target)
    again, _ = one_pass(model, sites, open_batches())
    expected = [
        _with_prior(before, moments.statistics(), prior, images)
        for before, moments in zip(earlier, again, strict=True)
    ]
    residual = max(
        distance(site.statistics, value, site.epsilon) for site, value in zip(called, expected, strict=True)
    )
    return Measurement(images=images, residual=residual, prior=prior)


def _with_prior(
    before: RunningStatistics, measured: RunningStatistics, prior: float, images: int
) -> RunningStatistics:
    share = images / (prior + images)
    return RunningStatistics(
        (1.0 - share) * before.mean + share * measured.mean,
        (1.0 - share) * before.variance + share * measured.variance,
    )


def one_pass(
    model: keras.Model, sites: Sequence[BNSite], batches: Batches
) -> tuple[list[PopulationMoments], int]:
    """Population moments of every called site, each normalising with the batch's own, and the number of images."""
    return _collect(model, sites, batches, normalise_with_batch=True)


def input_moments(
    model: keras.Model, sites: Sequence[BNSite], batches: Batches
) -> tuple[list[PopulationMoments], int]:
    """Population moments of every called site's input under the model as it is, and the number of images."""
    return _collect(model, sites, batches, normalise_with_batch=False)


def _collect(
    model: keras.Model, sites: Sequence[BNSite], batches: Batches, *, normalise_with_batch: bool
) -> tuple[list[PopulationMoments], int]:
    layers = [site.layer for site in sites if site.calls]
    place = {id(layer): index for index, layer in enumerate(layers)}
    seen: list[list[Moments]] = []

    def watched(layer: BatchNormalization, original: SiteCall) -> SiteCall:
        def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
            _, mean, variance = moments = _batch_moments(layer, inputs, mask)
            seen[place[id(layer)]].append(moments)
            if normalise_with_batch:
                return _normalise(layer, inputs, mean, variance)
            return original(inputs, training=False, mask=mask)

        return call

    def forward(images: Any) -> list[list[Moments]]:
        seen[:] = [[] for _ in layers]
        model(images, training=False)
        return list(seen)

    pools: list[list[PopulationMoments]] = [[] for _ in layers]
    total = 0
    with replaced_calls(layers, watched):
        compiled = None
        for images in batches:
            compiled = compiled or _compiled(forward, images)
            total += int(images.shape[0])
            for pool, calls in zip(pools, compiled(images), strict=True):
                parts = [PopulationMoments.of_batch(*map(ops.convert_to_numpy, call)) for call in calls]
                pool[:] = [PopulationMoments.pool([*pool, *parts])]
    if not total:
        raise ValueError("no batch was measured: the calibration set is empty")
    return [moments for (moments,) in pools], total


def _batch_moments(layer: BatchNormalization, inputs: Any, mask: Any) -> Moments:
    """Count, mean and biased variance behind each channel, in at least float32 whatever the compute precision."""
    inputs = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
    axis = layer.axis % len(inputs.shape)
    axes = [a for a in range(len(inputs.shape)) if a != axis]
    if mask is None:
        mean, variance = ops.moments(inputs, axes=axes)
        return ops.size(inputs) // mean.shape[0], mean, variance
    weights = ops.broadcast_to(ops.expand_dims(ops.cast(mask, inputs.dtype), -1), ops.shape(inputs))
    count = ops.sum(weights) / inputs.shape[axis]
    mean = ops.sum(weights * inputs, axis=axes, keepdims=True) / count
    variance = ops.sum(weights * ops.square(inputs - mean), axis=axes) / count
    return count, ops.reshape(mean, [-1]), variance


def _normalise(layer: BatchNormalization, inputs: Any, mean: Any, variance: Any) -> Any:
    outputs = ops.batch_normalization(
        ops.cast(inputs, mean.dtype),
        mean,
        variance,
        axis=layer.axis,
        offset=layer.beta,
        scale=layer.gamma,
        epsilon=layer.epsilon,
    )
    return ops.cast(outputs, layer.compute_dtype)


def _compiled(function: Callable[[Any], Any], images: Any) -> Callable[[Any], Any]:
    """As one graph under TensorFlow, traced once for batches of any size; other backends run it eagerly."""
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    signature = tf.TensorSpec([None, *images.shape[1:]], tf.as_dtype(images.dtype))
    # the concrete function: a tf.function made anew for every measurement would warn of retracing
    graph = tf.function(function, input_signature=[signature], autograph=False).get_concrete_function()
    return lambda batch: graph(tf.convert_to_tensor(batch))
