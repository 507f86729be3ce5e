"""A SavedModel's network with every site normalising with the batch: one fused kernel instead of the site's chain.

A chain y = A x + B that normalises with (mean, variance) has the effective gamma = A sqrt(variance + epsilon) and
beta = B + A mean, whatever operations it is made of; both are computed in float64 from the variables.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops

from finetune.batchnorm.batch_moments import batch_moments
from finetune.batchnorm.kernel import fusible, kernel_takes, normalise_with_batch
from finetune.batchnorm.matching import Affine
from finetune.batchnorm.moment_nodes import MEASURED, Watch, fused
from finetune.batchnorm.moments import Float64
from finetune.batchnorm.tf_network import TFNetwork
from finetune.batchnorm.written_nodes import placed, template
from finetune.formats.affine_chain import chain_of, scale_and_offset
from finetune.formats.cut_network import Known, shape_at
from finetune.formats.flat_graph import FlatGraph
from finetune.formats.fused_sites import FUSED
from finetune.formats.live_variable import LiveVariable
from finetune.formats.parameter_arithmetic import evaluate, reads_behind, variable_behind
from finetune.formats.saved_site import SavedSite
from finetune.formats.site_call import SiteCall

PREFIX = "finetune_batch"


def in_batch_mode(
    network: TFNetwork,
    graph: FlatGraph,
    sites: Sequence[SavedSite],
    variables: Mapping[str, LiveVariable],
    known: Mapping[str, Known],
    affine: Mapping[str, Affine],
    precise: Collection[int],
) -> tuple[TFNetwork, list[list[Watch]]]:
    """The network, and per site what is watched at each of its calls.

    affine: by site path, what is done to normalised values before gamma and beta. precise: sites whose moments
    are reduced in float64.
    """
    replaced: dict[str, Any] = {}
    added: list[Any] = []
    watched: list[list[Watch]] = []
    for number, site in enumerate(sites):
        watched.append([])
        for call in site.places:
            gamma, beta = _gamma_and_beta(graph, call, site, variables)
            scale, offset = affine.get(site.path, (1.0, 0.0))
            prefix, moved = f"{PREFIX}_{len(replaced)}", beta + gamma * offset
            outputs, watch = _normalised(prefix, call, known, gamma * scale, moved, precise=number in precise)
            added += watch.nodes
            replaced[call.operations[-1]] = _handing_on(call, outputs, known)
            watched[-1].append(watch)
    nodes = [replaced.get(node.name, node) for node in network.nodes]
    return (
        TFNetwork([*nodes, *added], network.library, network.inputs, network.captures, (), {}),
        watched,
    )


def _gamma_and_beta(
    graph: FlatGraph, call: SiteCall, site: SavedSite, variables: Mapping[str, LiveVariable]
) -> tuple[Float64, Float64]:
    """(channels,) each."""
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


def _normalised(
    prefix: str,
    call: SiteCall,
    known: Mapping[str, Known],
    gamma: Float64,
    beta: Float64,
    *,
    precise: bool,
) -> tuple[str, Watch]:
    """The tensor that the site hands on when it normalises with the batch, and what is watched of its inputs."""
    given = known[call.inputs]
    shape = () if call.axis is None else shape_at(call, known)
    if not precise and call.axis is not None and kernel_takes(len(shape), call.axis, given.dtype.name):
        watch, outputs = fused(
            prefix, call.inputs, len(shape), given.dtype, scale=gamma, offset=beta, epsilon=call.epsilon
        )
        return outputs, watch

    def build(inputs: Any) -> None:
        if call.axis is None:
            axis, shaped = -1, tf.reshape(inputs, [-1, call.channels])
        else:
            axis, shaped = call.axis, inputs
            shaped.set_shape(shape)
        outputs, moments = _with_batch(shaped, axis, gamma, beta, call.epsilon, precise=precise)
        tf.identity(tf.reshape(outputs, tf.shape(inputs)), name="outputs")
        for name, moment in zip(MEASURED, moments, strict=True):
            tf.identity(moment, name=name)

    nodes = placed(template(build, inputs=(given.dtype, given.shape)), prefix, inputs=call.inputs)
    count, mean, variance = (f"{prefix}/{name}:0" for name in MEASURED)
    return f"{prefix}/outputs:0", Watch(nodes, (count, mean, variance), fused=False)


def _handing_on(call: SiteCall, outputs: str, known: Mapping[str, Known]) -> Any:
    """In place of the chain's last operation, under its name and with its dtype."""
    name = call.operations[-1]
    node = tf.compat.v1.NodeDef(name=name, op="Cast", input=[outputs])
    node.attr["SrcT"].type = known[call.inputs].dtype.as_datatype_enum
    node.attr["DstT"].type = known[f"{name}:0"].dtype.as_datatype_enum
    return node


def _with_batch(
    inputs: Any, axis: int, gamma: Float64, beta: Float64, epsilon: float, *, precise: bool
) -> tuple[Any, Sequence[Any]]:
    """The outputs of a site that normalises with the batch, in the inputs' dtype, and its moments."""
    if fusible(inputs, axis):
        outputs, mean, variance = normalise_with_batch(inputs, np.float32(gamma), np.float32(beta), epsilon)
        moments: Sequence[Any] = (ops.size(inputs) // inputs.shape[-1], mean, variance)
    else:
        _, mean, variance = moments = batch_moments(inputs, None, axis)
        scale, offset = (ops.cast(each, mean.dtype) for each in (gamma, beta))
        normalised = ops.batch_normalization(
            ops.cast(inputs, mean.dtype), mean, variance, axis, offset, scale, epsilon
        )
        outputs = ops.cast(normalised, inputs.dtype)
    return outputs, batch_moments(inputs, None, axis, precise=True) if precise else moments
