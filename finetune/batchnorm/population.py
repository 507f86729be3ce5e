"""Population moments of all sites in one pass over a calibration set.

- `one_pass`: every site normalises with the batch's own moments, which are pooled over the batches
  (precise BN: Wu & Johnson 2021, arXiv:2105.07576; here by the law of total variance, not by averaging
  variances). From the second site on the result depends on how the images are batched.
- `input_moments`: the moments of every site's input under the model as it is, running statistics
  included. Changes nothing; how the images are batched does not matter.

Both run the model in inference mode: dropout, stochastic depth and augmentation layers stay off, and
only the sites themselves are replaced for the time of the pass. A site whose mean is far from zero is
measured again in float64 in a second pass, so `batches` must be open to be iterated again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import keras
from keras import ops
from keras.layers import BatchNormalization

from finetune.batchnorm.batch_moments import Moments, batch_moments
from finetune.batchnorm.eager import functions_run_eagerly
from finetune.batchnorm.kept_graphs import kept_or_made
from finetune.batchnorm.kernel import fusible, normalise_with_batch
from finetune.batchnorm.matching import Affine
from finetune.batchnorm.moments import PopulationMoments
from finetune.batchnorm.sites import BNSite, SiteCall, replaced_calls

Batches = Iterable[Any]

Normalise = Callable[[BatchNormalization, Any, Any, SiteCall], tuple[Any, Moments]]
"""(layer, inputs, mask, Keras' own call) -> what the site hands on, and the moments of its inputs."""

Forward = Callable[[Any], list[list[Moments]]]
"""One batch -> per site, the moments at each of its calls."""


class _OpaqueError(Exception):
    """Some call of a site does not show in the graph of the model."""


def one_pass(
    model: keras.Model,
    sites: Sequence[BNSite],
    batches: Batches,
    affine: Mapping[str, Affine] | None = None,
) -> tuple[list[PopulationMoments], int]:
    """Population moments of every called site, each normalising with the batch's own, and the number of images.

    affine: by site path, what is done to the normalised values before gamma and beta
    (finetune.batchnorm.matching.matched_affine); nothing where a path is missing.
    """
    extra = {id(site.layer): (affine or {}).get(site.path) for site in sites}

    def normalise(
        layer: BatchNormalization, inputs: Any, mask: Any, original: SiteCall
    ) -> tuple[Any, Moments]:
        gamma, beta = _with_affine(layer, extra[id(layer)])
        if mask is None and fusible(inputs, layer.axis):
            # about zero, not about what is stored: measured again on the same images it comes to the same bytes
            outputs, mean, variance = normalise_with_batch(
                inputs, gamma, beta, layer.epsilon, ops.zeros_like(layer.moving_mean), measuring=True
            )
            return outputs, (ops.size(inputs) // inputs.shape[-1], mean, variance)
        _, mean, variance = moments = batch_moments(inputs, mask, layer.axis)
        outputs = ops.batch_normalization(
            ops.cast(inputs, mean.dtype), mean, variance, layer.axis, beta, gamma, layer.epsilon
        )
        return ops.cast(outputs, layer.compute_dtype), moments

    return _collect(model, sites, batches, normalise, "" if affine else "one pass")


def input_moments(
    model: keras.Model, sites: Sequence[BNSite], batches: Batches
) -> tuple[list[PopulationMoments], int]:
    """Population moments of every called site's input under the model as it is, and the number of images."""

    def keep(layer: BatchNormalization, inputs: Any, mask: Any, original: SiteCall) -> tuple[Any, Moments]:
        return original(inputs, training=False, mask=mask), batch_moments(inputs, mask, layer.axis)

    return _collect(model, sites, batches, keep, "input moments")


def _with_affine(layer: BatchNormalization, affine: Affine | None) -> tuple[Any, Any]:
    """gamma and beta as the site applies them, over what else is done to the normalised values."""
    gamma, beta = layer.gamma, layer.beta
    if affine is None:
        return gamma, beta
    scale, offset = (ops.cast(a, layer.moving_mean.dtype) for a in affine)
    scaled, moved = (scale, offset) if gamma is None else (gamma * scale, gamma * offset)
    return scaled, moved if beta is None else moved + beta


def _collect(
    model: keras.Model, sites: Sequence[BNSite], batches: Batches, normalise: Normalise, name: str
) -> tuple[list[PopulationMoments], int]:
    """name: of what `normalise` does, where it is the same in every measurement of that name."""
    called = [site for site in sites if site.calls]
    pooled, images = _pass(model, called, batches, normalise, name, precise=())
    far = {id(s.layer) for s, m in zip(called, pooled, strict=True) if m.far_from_zero(s.epsilon)}
    if not far:
        return pooled, images
    if iter(batches) is batches:
        raise ValueError("a site far from zero is measured twice: give batches that can be iterated again")
    again, _ = _pass(model, called, batches, normalise, name, precise=far)
    return [b if id(s.layer) in far else a for s, a, b in zip(called, pooled, again, strict=True)], images


def _pass(
    model: keras.Model,
    sites: Sequence[BNSite],
    batches: Batches,
    normalise: Normalise,
    name: str,
    precise: Collection[int],
) -> tuple[list[PopulationMoments], int]:
    """Once over the batches; the layers with an id in `precise` have their moments reduced in float64.

    Other backends than TensorFlow run it eagerly; so does a model that has calls of a site in a function or a loop of
    its own.
    """
    layers = [site.layer for site in sites]
    place = {id(layer): index for index, layer in enumerate(layers)}
    seen: list[list[Moments]] = []

    def watched(layer: BatchNormalization, original: SiteCall) -> SiteCall:
        def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
            outputs, moments = normalise(layer, inputs, mask, original)
            if id(layer) in precise:
                moments = batch_moments(inputs, mask, layer.axis, precise=True)
            seen[place[id(layer)]].append(moments)
            return outputs

        return call

    def forward(images: Any) -> list[list[Moments]]:
        seen[:] = [[] for _ in layers]
        model(images, training=False)
        return list(seen)

    def compiled_for(images: Any) -> Forward:
        if keras.backend.backend() != "tensorflow":
            return forward
        places = tuple(place[each] for each in precise)
        key = (name, tuple(site.path for site in sites), places, tuple(images.shape[1:]), str(images.dtype))
        calls = [site.calls for site in sites]
        try:
            if not name:
                return _compiled(forward, images, calls)
            return kept_or_made(model, key, lambda: _compiled(forward, images, calls))
        except _OpaqueError:
            return functions_run_eagerly()(forward)

    pools: list[list[PopulationMoments]] = [[] for _ in layers]
    total = 0
    with replaced_calls(layers, watched):
        compiled = None
        for images in batches:
            compiled = compiled or compiled_for(images)
            total += int(images.shape[0])
            for pool, calls in zip(pools, compiled(images), strict=True):
                parts = [PopulationMoments.of_batch(*map(ops.convert_to_numpy, call)) for call in calls]
                pool[:] = [PopulationMoments.pool([*pool, *parts])]
    if not total:
        raise ValueError("no image was measured: the calibration set is empty")
    return [moments for (moments,) in pools], total


def _compiled(function: Forward, images: Any, expected: Sequence[int]) -> Forward:
    """As one graph, traced once for batches of any size.

    Raises _OpaqueError where a model has some of the expected calls per site in a function or a loop of its own.
    """
    import tensorflow as tf

    def traced(batch: Any) -> list[list[Moments]]:
        calls, here = function(batch), tf.compat.v1.get_default_graph()
        outside = [
            t for site in calls for call in site for t in call if tf.is_tensor(t) and t.graph is not here
        ]
        if outside or [len(site) for site in calls] != list(expected):
            raise _OpaqueError
        return calls

    signature = [tf.TensorSpec([None, *images.shape[1:]], tf.as_dtype(images.dtype))]
    # the concrete function: a tf.function made anew for every measurement would warn of retracing
    graph = tf.function(traced, input_signature=signature, autograph=False).get_concrete_function()
    return lambda batch: graph(tf.convert_to_tensor(batch))
