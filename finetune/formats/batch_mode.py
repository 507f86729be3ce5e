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
from finetune.batchnorm.kernel import fusible, normalise_with_batch
from finetune.batchnorm.matching import Affine
from finetune.batchnorm.moments import Float64
from finetune.batchnorm.tf_network import TFNetwork
from finetune.formats.affine_chain import chain_of, scale_and_offset
from finetune.formats.cut_network import Known, shape_at
from finetune.formats.flat_graph import FlatGraph, tensor_name
from finetune.formats.fused_sites import FUSED
from finetune.formats.live_variable import LiveVariable
from finetune.formats.parameter_arithmetic import evaluate, reads_behind, variable_behind
from finetune.formats.saved_site import SavedSite
from finetune.formats.site_call import SiteCall

PREFIX = "finetune_batch"
MOMENTS = ("measured/count", "measured/mean", "measured/variance")


def in_batch_mode(
    network: TFNetwork,
    graph: FlatGraph,
    sites: Sequence[SavedSite],
    variables: Mapping[str, LiveVariable],
    known: Mapping[str, Known],
    affine: Mapping[str, Affine],
    precise: Collection[int],
) -> tuple[TFNetwork, list[list[str]]]:
    """The network, and per site the names of count, mean and biased variance at each of its calls, in a row.

    affine: by site path, what is done to normalised values before gamma and beta. precise: sites whose moments
    are reduced in float64.
    """
    replaced: dict[str, Any] = {}
    added: list[Any] = []
    moments: list[list[str]] = []
    for number, site in enumerate(sites):
        moments.append([])
        for call in site.places:
            gamma, beta = _gamma_and_beta(graph, call, site, variables)
            scale, offset = affine.get(site.path, (1.0, 0.0))
            prefix = f"{PREFIX}_{len(added)}"
            nodes = _kernel(
                prefix, call, known, gamma * scale, beta + gamma * offset, precise=number in precise
            )
            added += nodes
            replaced[call.operations[-1]] = _handing_on(call, prefix, known)
            moments[-1] += [f"{prefix}/{name}:0" for name in MOMENTS]
    nodes = [replaced.get(node.name, node) for node in network.nodes]
    return (
        TFNetwork([*nodes, *added], network.library, network.inputs, network.captures, (), {}),
        moments,
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


def _kernel(
    prefix: str, call: SiteCall, known: Mapping[str, Known], gamma: Float64, beta: Float64, *, precise: bool
) -> list[Any]:
    """Operations from the call's inputs to `prefix/outputs` and the moments."""
    given = known[call.inputs]
    with tf.Graph().as_default() as scratch:
        inputs = tf.compat.v1.placeholder(given.dtype, given.shape, name="inputs")
        if call.axis is None:
            axis, shaped = -1, tf.reshape(inputs, [-1, call.channels])
        else:
            axis, shaped = call.axis, inputs
            shaped.set_shape(shape_at(call, known))
        outputs, moments = _normalised(shaped, axis, gamma, beta, call.epsilon, precise=precise)
        if shaped is not inputs:
            outputs = tf.reshape(outputs, tf.shape(inputs))
        tf.identity(tf.cast(outputs, known[_last(call)].dtype), name="outputs")
        for name, moment in zip(MOMENTS, moments, strict=True):
            tf.identity(moment, name=name)
    return [
        _renamed(node, prefix, call.inputs) for node in scratch.as_graph_def().node if node.name != "inputs"
    ]


def _renamed(node: Any, prefix: str, inputs: str) -> Any:
    """The same operation under a prefix, with the call's inputs where the scratch graph has a placeholder."""
    references = [tensor_name(r) for r in node.input if not r.startswith("^")]
    node.name = f"{prefix}/{node.name}"
    del node.input[:]
    node.input.extend(inputs if r == "inputs:0" else f"{prefix}/{r}" for r in references)
    return node


def _handing_on(call: SiteCall, prefix: str, known: Mapping[str, Known]) -> Any:
    """In place of the chain's last operation, under its name."""
    node = tf.compat.v1.NodeDef(name=call.operations[-1], op="Identity", input=[f"{prefix}/outputs:0"])
    node.attr["T"].type = known[_last(call)].dtype.as_datatype_enum
    return node


def _last(call: SiteCall) -> str:
    return f"{call.operations[-1]}:0"


def _normalised(
    inputs: Any, axis: int, gamma: Float64, beta: Float64, epsilon: float, *, precise: bool
) -> tuple[Any, Sequence[Any]]:
    """The outputs of a site that normalises with the batch, and its moments."""
    if fusible(inputs, axis):
        outputs, mean, variance = normalise_with_batch(inputs, np.float32(gamma), np.float32(beta), epsilon)
        moments: Sequence[Any] = (ops.size(inputs) // inputs.shape[-1], mean, variance)
    else:
        _, mean, variance = moments = batch_moments(inputs, None, axis)
        scale, offset = (ops.cast(each, mean.dtype) for each in (gamma, beta))
        outputs = ops.batch_normalization(
            ops.cast(inputs, mean.dtype), mean, variance, axis, offset, scale, epsilon
        )
    return outputs, batch_moments(inputs, None, axis, precise=True) if precise else moments
