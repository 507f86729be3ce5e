"""A SavedModel's network with every site normalising with the batch: one way of ours instead of the site's chain.

A chain y = A x + B that normalises with (mean, variance) has the effective gamma = A sqrt(variance + epsilon) and
beta = B + A mean, whatever operations it is made of; both are computed in float64 from the variables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finetune.batchnorm.batch_network import BatchNetwork, GammaBeta
from finetune.batchnorm.batch_sites import BatchCall
from finetune.batchnorm.moments import Float64
from finetune.batchnorm.tf_network import TFNetwork
from finetune.formats.affine_chain import chain_of, scale_and_offset
from finetune.formats.cut_network import Known, shape_at
from finetune.formats.flat_graph import FlatGraph
from finetune.formats.fused_sites import FUSED
from finetune.formats.live_variable import LiveVariable
from finetune.formats.parameter_arithmetic import evaluate, reads_behind, variable_behind
from finetune.formats.saved_site import SavedSite
from finetune.formats.site_call import SiteCall


def in_batch_mode(
    network: TFNetwork, sites: Sequence[SavedSite], known: Mapping[str, Known], *, any_size: bool
) -> BatchNetwork:
    """known: of the inputs and outputs of every call. any_size: see BatchNetwork."""
    calls = [_call(number, place, known) for number, site in enumerate(sites) for place in site.places]
    return BatchNetwork(network, calls, any_size)


def _call(number: int, place: SiteCall, known: Mapping[str, Known]) -> BatchCall:
    outputs = f"{place.operations[-1]}:0"
    inputs = known[place.inputs]
    return BatchCall(
        site=number,
        inputs=place.inputs,
        outputs=outputs,
        shape=inputs.shape if place.axis is None else shape_at(place, known),
        axis=place.axis,
        channels=place.channels,
        epsilon=place.epsilon,
        dtypes=(inputs.dtype, known[outputs].dtype),
        behind=inputs.behind,
    )


def gamma_and_beta(
    graph: FlatGraph, call: SiteCall, site: SavedSite, variables: Mapping[str, LiveVariable]
) -> GammaBeta:
    """Of the normalised values, (channels,) each."""
    values = _values(graph, call, variables)
    last = graph.nodes[call.operations[-1]]
    if last.op in FUSED:
        known: dict[str, Any] = {}
        gamma, beta = (np.ravel(evaluate(graph, tensor, values, known)) for tensor in last.inputs[1:3])
        return gamma, beta
    scale, offset = scale_and_offset(graph, chain_of(graph, call.operations), values)
    scale, offset = (np.broadcast_to(np.ravel(each), (call.channels,)) for each in (scale, offset))
    mean, variance = (np.ravel(v).astype(np.float64) for v in (site.mean.values, site.variance.values))
    return scale * np.sqrt(variance + call.epsilon), offset + scale * mean


def _values(graph: FlatGraph, call: SiteCall, variables: Mapping[str, LiveVariable]) -> dict[str, Float64]:
    """What every variable that the site reads holds now, by read."""
    tensors = [t for name in call.operations for t in graph.nodes[name].inputs if not graph.depends(t)]
    return {
        read: variables[variable_behind(graph, read)].values.astype(np.float64)
        for tensor in tensors
        for read in reads_behind(graph, tensor)
    }
