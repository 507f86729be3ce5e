"""A Keras model as a network: traced once in inference mode, its sites noted as they are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from finetune.batchnorm.batch_network import BatchNetwork
from finetune.batchnorm.batch_sites import BatchCall
from finetune.batchnorm.conv_names import ConvNames, names_of_convolution
from finetune.batchnorm.kept_graphs import KeptPieces
from finetune.batchnorm.sites import BNSite, SiteCall, replaced_calls
from finetune.batchnorm.tf_network import TFNetwork, WatchedCall


class UncutError(Exception):
    """This model cannot be cut at its sites."""


@dataclass(frozen=True, eq=False)
class Traced:
    """network: to be cut at the sites. in_batch_mode: each site normalising with its batch."""

    network: TFNetwork | KeptPieces
    in_batch_mode: BatchNetwork


@dataclass(frozen=True, eq=False)
class _Noted:
    """A call of a site, and what is behind its inputs."""

    site: int
    inputs: Any
    outputs: Any
    mask: Any
    behind: ConvNames | None


def trace(model: keras.Model, sites: Sequence[BNSite], images: Any) -> Traced:
    """The network of a model whose sites, all called, are counted as given.

    images: one batch as the model takes it; only its shape and dtype count.
    Raises UncutError where a site is called inside a function or a loop of its own.
    """
    calls: list[_Noted] = []
    place = {id(site.layer): number for number, site in enumerate(sites)}

    def noting(layer: keras.layers.Layer, original: SiteCall) -> SiteCall:
        def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
            outputs = original(inputs, training=False, mask=mask)
            behind = names_of_convolution(inputs, lambda tensor: tensor.name)
            calls.append(_Noted(place[id(layer)], inputs, outputs, mask, behind))
            return outputs

        return call

    signature = tf.TensorSpec([None, *images.shape[1:]], tf.as_dtype(images.dtype))
    function = tf.function(lambda batch: model(batch, training=False), autograph=False)
    with replaced_calls([site.layer for site in sites], noting):
        graph = function.get_concrete_function(signature).graph
    noted = Counter(call.site for call in calls)
    # a function that was traced before calls the site without a word
    silent = any(noted[number] != site.calls for number, site in enumerate(sites))
    if silent or any(call.inputs.graph is not graph for call in calls):
        raise UncutError("a site is called inside a function or a loop of its own")
    definition = graph.as_graph_def()
    captures = {inside.name: outside for outside, inside in graph.captures}
    network = TFNetwork(
        nodes=tuple(definition.node),
        library=definition.library,
        inputs=tuple(t.name for t in graph.inputs if t.name not in captures),
        captures=captures,
        calls=tuple(_watched(call, sites[call.site]) for call in calls),
        statistics=_statistics(sites, captures),
    )
    in_batch_mode = [_in_batch_mode(call, sites[call.site]) for call in calls]
    return Traced(network, BatchNetwork(network, in_batch_mode, any_size=True))


def _watched(call: _Noted, site: BNSite) -> WatchedCall:
    mask = None if call.mask is None else call.mask.name
    return WatchedCall(call.site, call.inputs.name, tuple(call.inputs.shape), site.layer.axis, mask)


def _in_batch_mode(call: _Noted, site: BNSite) -> BatchCall:
    return BatchCall(
        site=call.site,
        inputs=call.inputs.name,
        outputs=call.outputs.name,
        shape=tuple(call.inputs.shape),
        axis=site.layer.axis,
        channels=site.channels,
        epsilon=site.epsilon,
        dtypes=(call.inputs.dtype, call.outputs.dtype),
        mask=None if call.mask is None else call.mask.name,
        behind=call.behind,
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
