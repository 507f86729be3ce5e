"""An ONNX model in which every site normalises with the batch: precise BN in one pass over the images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from finetune.batchnorm.matching import Affine
from finetune.batchnorm.moments import PopulationMoments
from finetune.formats.onnx_moments import TRAINING_MODE, moment_nodes, normalising_nodes
from finetune.formats.onnx_network import OnnxNetwork, moment_names, moments_of, prefix_of

BatchMoments = Callable[[Mapping[str, Any]], list[PopulationMoments]]
"""One batch, by name of the input -> the moments of every site, its calls pooled."""


def batch_mode(network: OnnxNetwork, affine: Mapping[str, Affine], precise: Collection[int]) -> BatchMoments:
    """affine: by site path, what is done to normalised values before gamma and beta. precise: numbers of the sites
    whose moments are reduced in float64."""
    graph, sites = network.graph, network.sites
    number = {node.output[0]: place for place, site in enumerate(sites) for node in site.nodes}
    nodes: list[NodeProto] = []
    constants: list[TensorProto] = []
    places: list[int] = []
    for node in graph.between(graph.inputs, [node.output[0] for site in sites for node in site.nodes]):
        more, values = [node], list[TensorProto]()
        if node.output[0] in number:
            place = number[node.output[0]]
            more, values = _in_place_of(
                node, network, place, prefix_of(len(places)), affine, place in precise
            )
            places.append(place)
        nodes += more
        constants += values
    forward = network.runner(graph.inputs, nodes, constants, moment_names(len(places)))

    def run(batch: Mapping[str, Any]) -> list[PopulationMoments]:
        parts: list[list[PopulationMoments]] = [[] for _ in sites]
        for place, moments in zip(places, moments_of(forward(batch)), strict=True):
            parts[place].append(moments)
        return [PopulationMoments.pool(calls) for calls in parts]

    return run


def _in_place_of(
    node: NodeProto,
    network: OnnxNetwork,
    place: int,
    prefix: str,
    affine: Mapping[str, Affine],
    precise: bool,
) -> tuple[list[NodeProto], list[TensorProto]]:
    """The moments of a call, and the same node normalising with them."""
    site = network.sites[place]
    inputs = [node.input[0], node.input[1], node.input[2]]
    extra, factors = list[NodeProto](), list[TensorProto]()
    if site.path in affine:
        extra, factors = _with_affine(node, network, prefix, affine[site.path])
        inputs[1:] = [f"{prefix}gamma", f"{prefix}beta"]
    if not precise and _normalises_itself(node, network):
        nodes, constants = normalising_nodes(node, inputs, prefix, site.channels)
        return [*extra, *nodes], [*factors, *constants]
    nodes, constants = moment_nodes(
        node.input[0], prefix, site.channels, network.graph.opset, precise=precise
    )
    nodes, constants = nodes + extra, constants + factors
    for name, stored in (("mean", node.input[3]), ("variance", node.input[4])):
        nodes.append(
            helper.make_node(
                "Cast", [prefix + name], [f"{prefix}{name}_in_force"], to=network.element(stored)
            )
        )
    renewed = NodeProto()
    renewed.CopyFrom(node)
    renewed.input[:] = [*inputs, f"{prefix}mean_in_force", f"{prefix}variance_in_force"]
    return [*nodes, renewed], constants


def _normalises_itself(node: NodeProto, network: OnnxNetwork) -> bool:
    """Whether the kernel that takes the moments can also hand on what it normalised: all of it is float32."""
    kinds = {network.element(name) for name in node.input}
    return network.graph.opset >= TRAINING_MODE and kinds == {TensorProto.FLOAT}


def _with_affine(
    node: NodeProto, network: OnnxNetwork, prefix: str, affine: Affine
) -> tuple[list[NodeProto], list[TensorProto]]:
    """gamma and beta as the node applies them, over what else is done to the normalised values."""
    gamma, beta = node.input[1], node.input[2]
    dtype = helper.tensor_dtype_to_np_dtype(network.element(gamma))
    nodes = [
        helper.make_node("Mul", [gamma, f"{prefix}scale"], [f"{prefix}gamma"]),
        helper.make_node("Mul", [gamma, f"{prefix}offset"], [f"{prefix}moved"]),
        helper.make_node("Add", [beta, f"{prefix}moved"], [f"{prefix}beta"]),
    ]
    return nodes, [
        numpy_helper.from_array(np.asarray(values, dtype), prefix + name)
        for name, values in zip(("scale", "offset"), affine, strict=True)
    ]
