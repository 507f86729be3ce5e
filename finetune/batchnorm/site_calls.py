"""Moments at the sites of a Keras model as it calls them, on any backend: no graph of it needs to be known.

Only the sites themselves are replaced for the time of a pass. Under TensorFlow for models that have calls of a site in
a function or a loop of its own, which is run eagerly.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import keras
from keras import ops
from keras.layers import BatchNormalization

from finetune.batchnorm.batch_moments import Moments, batch_moments
from finetune.batchnorm.eager import functions_run_eagerly
from finetune.batchnorm.kernel import fusible, normalise_with_batch
from finetune.batchnorm.moments import Float64, PopulationMoments
from finetune.batchnorm.passes import Run
from finetune.batchnorm.sites import BNSite, SiteCall, replaced_calls

Normalise = Callable[[BatchNormalization, Any, Any, SiteCall], tuple[Any, Moments]]
"""(layer, inputs, mask, Keras' own call) -> what the site hands on, and the moments of its inputs."""


def with_batch(sites: Sequence[BNSite], gamma_and_beta: Sequence[tuple[Float64, Float64]]) -> Normalise:
    """Normalising with the batch's own moments. gamma_and_beta: per site, (channels,) each."""
    known = {id(site.layer): each for site, each in zip(sites, gamma_and_beta, strict=True)}

    def normalise(
        layer: BatchNormalization, inputs: Any, mask: Any, original: SiteCall
    ) -> tuple[Any, Moments]:
        gamma, beta = (ops.cast(each, layer.moving_mean.dtype) for each in known[id(layer)])
        if mask is None and fusible(inputs, layer.axis):
            outputs, mean, variance = normalise_with_batch(inputs, gamma, beta, layer.epsilon)
            return outputs, (ops.size(inputs) // inputs.shape[-1], mean, variance)
        _, mean, variance = moments = batch_moments(inputs, mask, layer.axis)
        outputs = ops.batch_normalization(
            ops.cast(inputs, mean.dtype), mean, variance, layer.axis, beta, gamma, layer.epsilon
        )
        return ops.cast(outputs, layer.compute_dtype), moments

    return normalise


def as_it_is(layer: BatchNormalization, inputs: Any, mask: Any, original: SiteCall) -> tuple[Any, Moments]:
    """Normalising as Keras does in inference mode."""
    return original(inputs, training=False, mask=mask), batch_moments(inputs, mask, layer.axis)


def run_called(
    model: keras.Model, sites: Sequence[BNSite], normalise: Normalise, precise: Collection[int]
) -> Run:
    """What measures one batch, the sites being called. precise: sites whose moments are reduced in float64."""
    layers = [site.layer for site in sites]
    place = {id(layer): number for number, layer in enumerate(layers)}
    seen: list[list[Moments]] = []

    def watched(layer: BatchNormalization, original: SiteCall) -> SiteCall:
        number = place[id(layer)]

        def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
            outputs, moments = normalise(layer, inputs, mask, original)
            if number in precise:
                moments = batch_moments(inputs, mask, layer.axis, precise=True)
            seen[number].append(moments)
            return outputs

        return call

    def run(images: Any) -> list[PopulationMoments]:
        seen[:] = [[] for _ in layers]
        with replaced_calls(layers, watched), functions_run_eagerly():
            model(images, training=False)
        return [PopulationMoments.pool(map(_in_float64, calls)) for calls in seen]

    return run


def _in_float64(moments: Moments) -> PopulationMoments:
    return PopulationMoments.of_batch(*map(ops.convert_to_numpy, moments))
