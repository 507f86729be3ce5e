"""A Keras model as a network that can be cut: traced once in inference mode, its sites noted as they are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from finetune.batchnorm.sites import BNSite, SiteCall, replaced_calls
from finetune.batchnorm.tf_network import TFNetwork, WatchedCall


class UncutError(Exception):
    """This model cannot be cut at its sites."""


def trace(model: keras.Model, sites: Sequence[BNSite], images: Any) -> TFNetwork:
    """The network of a model whose sites, all called, are counted as given.

    images: one batch as the model takes it; only its shape and dtype count.
    Raises UncutError where a site is called inside a function or a loop of its own.
    """
    calls: list[tuple[int, Any, Any]] = []
    place = {id(site.layer): number for number, site in enumerate(sites)}

    def noting(layer: keras.layers.Layer, original: SiteCall) -> SiteCall:
        def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
            calls.append((place[id(layer)], inputs, mask))
            return original(inputs, training=False, mask=mask)

        return call

    signature = tf.TensorSpec([None, *images.shape[1:]], tf.as_dtype(images.dtype))
    function = tf.function(lambda batch: model(batch, training=False), autograph=False)
    with replaced_calls([site.layer for site in sites], noting):
        graph = function.get_concrete_function(signature).graph
    noted = Counter(number for number, _, _ in calls)
    # a function that was traced before calls the site without a word
    silent = any(noted[number] != site.calls for number, site in enumerate(sites))
    if silent or any(inputs.graph is not graph for _, inputs, _ in calls):
        raise UncutError("a site is called inside a function or a loop of its own")
    definition = graph.as_graph_def()
    captures = {inside.name: outside for outside, inside in graph.captures}
    return TFNetwork(
        nodes=tuple(definition.node),
        library=definition.library,
        inputs=tuple(t.name for t in graph.inputs if t.name not in captures),
        captures=captures,
        calls=tuple(
            WatchedCall(
                number, x.name, tuple(x.shape), sites[number].layer.axis, None if mask is None else mask.name
            )
            for number, x, mask in calls
        ),
        statistics=_statistics(sites, captures),
    )


def _statistics(sites: Sequence[BNSite], captures: dict[str, Any]) -> dict[str, int]:
    """Name of the tensor inside the graph -> the site whose running mean or variance it is."""
    inside = {id(outside): name for name, outside in captures.items()}
    return {
        inside[id(variable.value.handle)]: number
        for number, site in enumerate(sites)
        for variable in (site.layer.moving_mean, site.layer.moving_variance)
        if id(variable.value.handle) in inside
    }
