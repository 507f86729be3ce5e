"""BN sites of an ONNX graph: BatchNormalization nodes whose statistics are constants of the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from finetune.batchnorm.moments import RunningStatistics
from finetune.formats.onnx_graph import STANDARD, OnnxGraph, attribute

BN = "BatchNormalization"
EPSILON = 1e-5
MEAN, VARIANCE = 3, 4
"""Places among the inputs of the node; 0 is what it normalises."""

PASSING = ("Identity", "Cast")
STATISTICS = ("running_mean", "moving_mean", "mean")
"""How people call their means: only to name a site, never to find one."""


@dataclass(eq=False)
class OnnxSite:
    """One pair of constants and every node that normalises with it, in the graph's order.

    mean, variance: names of the constants in `graph`, which holds what is in force.
    """

    path: str
    channels: int
    epsilon: float
    calls: int
    nodes: Sequence[NodeProto]
    mean: str
    variance: str
    graph: OnnxGraph

    @property
    def statistics(self) -> RunningStatistics:
        """In force; in the file's dtype."""
        return RunningStatistics(*(np.ravel(self.graph.values(name)) for name in (self.mean, self.variance)))

    def store(self, statistics: RunningStatistics) -> None:
        """Put in force, rounded to the file's dtype; the file stays as it is."""
        self._put(self.mean, statistics.mean)
        self._put(self.variance, statistics.variance)

    def _put(self, name: str, values: NDArray) -> None:
        before = self.graph.values(name)
        self.graph.set_values(name, np.asarray(values).astype(before.dtype).reshape(before.shape))


def is_bn(node: NodeProto) -> bool:
    return node.op_type == BN and node.domain in STANDARD


def origin(graph: OnnxGraph, tensor: str) -> list[str]:
    """A tensor and those that it is handed on from, back to where it is made."""
    chain = [tensor]
    while tensor not in graph.constants and tensor in graph.producer:
        node = graph.model.graph.node[graph.producer[tensor]]
        if node.op_type not in PASSING:
            break
        tensor = node.input[0]
        chain.append(tensor)
    return chain


def group(graph: OnnxGraph, nodes: Sequence[NodeProto]) -> list[OnnxSite]:
    """Sites in the order of their first calls."""
    shared: dict[tuple[str, str], list[NodeProto]] = {}
    for node in nodes:
        mean, variance = (origin(graph, node.input[place])[-1] for place in (MEAN, VARIANCE))
        shared.setdefault((mean, variance), []).append(node)
    paths = _paths([(mean, nodes[0]) for (mean, _), nodes in shared.items()])
    return [
        OnnxSite(
            path=path,
            channels=graph.values(mean).size,
            epsilon=float(attribute(nodes[0], "epsilon", EPSILON)),
            calls=len(nodes),
            nodes=nodes,
            mean=mean,
            variance=variance,
            graph=graph,
        )
        for path, ((mean, variance), nodes) in zip(paths, shared.items(), strict=True)
    ]


def named(node: NodeProto) -> str:
    return node.name or node.output[0]


def _paths(sites: Sequence[tuple[str, NodeProto]]) -> list[str]:
    """The mean's name without its last part where that says what it is, else the node's; numbered where they repeat."""
    paths = [_before_statistic(mean) or named(node) for mean, node in sites]
    return [
        path if paths.count(path) == 1 else f"{path}_{paths[:number].count(path) + 1}"
        for number, path in enumerate(paths)
    ]


def _before_statistic(name: str) -> str:
    return next((name.removesuffix(s)[:-1] for s in STATISTICS if name.endswith((f".{s}", f"/{s}"))), "")
