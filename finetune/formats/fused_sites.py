"""Sites that are one operation, FusedBatchNorm, and those of them that hold no running statistics to change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from finetune.formats.flat_graph import FlatGraph, Node
from finetune.formats.parameter_arithmetic import READS, variable_behind
from finetune.formats.site_call import SiteCall

FUSED = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
HANDING_ON = ("Identity", "Cast", "Reshape", "Squeeze", "ExpandDims", "StopGradient")


@dataclass(frozen=True)
class FusedFindings:
    """sites; and the names of those that normalise with the batch, with constants, or with what is computed."""

    sites: tuple[SiteCall, ...]
    training: tuple[str, ...]
    frozen: tuple[str, ...]
    computed: tuple[str, ...]


def find_fused(graph: FlatGraph, shapes: Mapping[str, tuple[int, ...]]) -> FusedFindings:
    """Every FusedBatchNorm, in the graph's order. shapes: of the variables, by tensor."""
    sites: list[SiteCall] = []
    training: list[str] = []
    frozen: list[str] = []
    computed: list[str] = []
    for name, node in graph.nodes.items():
        if node.op not in FUSED or name not in graph.data:
            continue
        mean, variance = (_source(graph, tensor) for tensor in node.inputs[3:5])
        if node.attribute("is_training").b:
            training.append(name)
        elif "Const" in (mean.op, variance.op):
            frozen.append(name)
        elif mean.op not in READS or variance.op not in READS:
            computed.append(name)
        else:
            sites.append(_site(graph, node, mean, variance, shapes))
    return FusedFindings(tuple(sites), tuple(training), tuple(frozen), tuple(computed))


def _source(graph: FlatGraph, tensor: str) -> Node:
    """The operation that a mean or variance comes from, behind those that only hand it on."""
    node = graph.node(tensor)
    while node.op in HANDING_ON:
        node = graph.node(node.inputs[0])
    return node


def _site(
    graph: FlatGraph, node: Node, mean: Node, variance: Node, shapes: Mapping[str, tuple[int, ...]]
) -> SiteCall:
    variable = variable_behind(graph, f"{mean.name}:0")
    first = node.attribute("data_format").s.startswith(b"NC")
    return SiteCall(
        inputs=node.inputs[0],
        mean=variable,
        variance=variable_behind(graph, f"{variance.name}:0"),
        epsilon=float(node.attribute("epsilon").f),
        channels=int(shapes[variable][-1]),
        axes=(1,) if first else (-1,),
        operations=(node.name,),
    )
