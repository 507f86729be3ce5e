"""An ONNX model that can be cut at its sites: each piece a model of its own that onnxruntime runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

from finetune.batchnorm.array_moments import array_moments
from finetune.batchnorm.layerwise import Segment
from finetune.batchnorm.moments import PopulationMoments
from finetune.batchnorm.plan import Dataflow, Groups, Operation
from finetune.errors import ModelError
from finetune.formats.onnx_graph import OnnxGraph, reads
from finetune.formats.onnx_moments import OUTPUTS, moment_nodes
from finetune.formats.onnx_session import in_words, piece_of, session
from finetune.formats.onnx_sites import OnnxSite

SHARES = 8
"""Parts of a batch at most; more cores than that share the work of each."""


class OnnxNetwork:
    """The network of finetune.batchnorm.layerwise.

    types: of every tensor that is fed or made. divisible: whether batches of any size can be fed. The statistics
    are inputs of every piece, so that it uses those in force whenever it runs. A batch runs in parts side by side, on a
    core each: onnxruntime's own threads wait for each other at every operation, and some operations use one of them.
    """

    def __init__(
        self,
        graph: OnnxGraph,
        sites: Sequence[OnnxSite],
        types: Mapping[str, ValueInfoProto],
        path: Any,
        *,
        divisible: bool,
    ) -> None:
        self.graph, self.sites, self.types, self.path = graph, sites, types, path
        self.holders = {name: site for site in sites for name in (site.mean, site.variance)}
        self._latest: tuple[Any, Segment] | None = None
        cores = os.cpu_count() or 1
        self._shares = min(cores, SHARES) if divisible else 1
        self._threads = max(cores // self._shares, 1)

    @cached_property
    def _workers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._shares, thread_name_prefix="finetune-onnx")

    @cached_property
    def dataflow(self) -> Dataflow:
        used_by = {node.output[0]: number for number, site in enumerate(self.sites) for node in site.nodes}
        return Dataflow(
            operations=tuple(
                Operation(
                    tuple(reads(node)),
                    tuple(name for name in node.output if name),
                    Groups(used_by[name] for name in node.output if name in used_by),
                )
                for node in self.graph.live
            ),
            inputs=self.graph.inputs,
            measured=tuple(tuple(node.input[0] for node in site.nodes) for site in self.sites),
        )

    def segment(
        self, feeds: Sequence[str], keeps: Sequence[str], sites: Sequence[int], *, precise: bool
    ) -> Segment:
        # a loop asks for the same piece in every sweep
        wanted = (tuple(feeds), tuple(keeps), tuple(sites), precise)
        if self._latest is None or self._latest[0] != wanted:
            self._latest = (wanted, self._made(feeds, keeps, sites, precise=precise))
        return self._latest[1]

    def _made(
        self, feeds: Sequence[str], keeps: Sequence[str], sites: Sequence[int], *, precise: bool
    ) -> Segment:
        made = [name for name in keeps if name not in feeds]
        measured = [self.dataflow.measured[number] for number in sites]
        # what is handed out is measured there, which is faster; what is not stays inside the session
        outside = [name for calls in measured for name in calls if name in keeps]
        inside = [name for calls in measured for name in calls if name not in keeps]
        nodes, constants, names = self._watching(inside, precise=precise)
        before = self.graph.between(feeds, [*made, *inside])
        run = self.runner(feeds, [*before, *nodes], constants, [*made, *names], self._threads)

        def part(fed: Sequence[Any]) -> tuple[list[Any], list[PopulationMoments]]:
            new = run(dict(zip(feeds, fed, strict=True)))
            known = dict(zip([*feeds, *made], [*fed, *new[: len(made)]], strict=True))
            moments = {name: self._moments(name, known[name], precise=precise) for name in outside}
            moments |= zip(inside, moments_of(new[len(made) :]), strict=True)
            pooled = [PopulationMoments.pool(moments[name] for name in calls) for calls in measured]
            return [known[name] for name in keeps], pooled

        def segment(fed: Sequence[Any]) -> tuple[list[Any], list[PopulationMoments]]:
            first, *others = self._parts(feeds, fed)
            waiting = [self._workers.submit(part, other) for other in others]
            done = [part(first), *(each.result() for each in waiting)]
            kept = [tensor for tensors, _ in done for tensor in tensors]
            return kept, [PopulationMoments.pool(each) for each in zip(*(m for _, m in done), strict=True)]

        return segment

    def _parts(self, feeds: Sequence[str], fed: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """A batch in the parts that run side by side, each with one tensor per feed.

        Inside the network a tensor's first axis may be another than that of the images, so that what is handed on from
        cut to cut stays in the parts that the inputs were divided into.
        """
        if len(fed) != len(feeds):
            return [fed[start : start + len(feeds)] for start in range(0, len(fed), len(feeds))]
        images = {len(values) for values in fed if np.ndim(values)}
        if tuple(feeds) != self.graph.inputs or len(images) != 1 or self._shares == 1:
            return [fed]
        shares = min(self._shares, *images)
        split = [np.array_split(t, shares) if np.ndim(t) else [t] * shares for t in fed]
        return list(zip(*split, strict=True))

    def _moments(self, name: str, values: Any, *, precise: bool) -> PopulationMoments:
        moments, expected = array_moments(values, precise=precise), self._channels[name]
        if len(moments.mean) != expected:
            raise ModelError(
                f"{self.path}: damaged: {name} has {len(moments.mean)} channels, the site that reads it {expected}"
            )
        return moments

    @cached_property
    def _channels(self) -> dict[str, int]:
        """By what a site reads."""
        return {
            tensor: site.channels
            for site, measured in zip(self.sites, self.dataflow.measured, strict=True)
            for tensor in measured
        }

    def _watching(
        self, tensors: Sequence[str], *, precise: bool
    ) -> tuple[list[NodeProto], list[TensorProto], list[str]]:
        """Nodes and constants that take the moments of these tensors, and the names of these, three a tensor."""
        nodes: list[NodeProto] = []
        constants: list[TensorProto] = []
        for place, tensor in enumerate(tensors):
            more, values = moment_nodes(
                tensor, prefix_of(place), self._channels[tensor], self.graph.opset, precise=precise
            )
            nodes += more
            constants += values
        return nodes, constants, moment_names(len(tensors))

    def runner(
        self,
        feeds: Sequence[str],
        nodes: Sequence[NodeProto],
        constants: Sequence[TensorProto],
        fetches: Sequence[str],
        threads: int = 0,
    ) -> Any:
        """A function of the fed tensors, by name, that returns the fetched ones.

        nodes: of the model, or others put among them with constants of their own. threads: as of a session.
        """
        if not fetches:
            return lambda fed: []
        used = {name for node in nodes for name in reads(node)}
        inputs = [name for name in feeds if name in used]
        statistics = [name for name in self.holders if name in used]
        weights = [
            t for t in self.graph.model.graph.initializer if t.name in used and t.name not in statistics
        ]
        kept = [node for node in nodes if not set(node.output) & set(statistics)]
        described = [*(self.types[name] for name in inputs), *(self._statistic(name) for name in statistics)]
        with in_words(self.path):
            model = piece_of(self.graph.model, kept, described, fetches, [*weights, *constants])
            piece = session(model, threads=threads)
        dtypes = {name: helper.tensor_dtype_to_np_dtype(self.element(name)) for name in inputs}

        def run(fed: Mapping[str, Any]) -> list[Any]:
            given = {name: np.asarray(fed[name], dtypes[name]) for name in inputs}
            given |= {name: self.graph.values(name) for name in statistics}
            with in_words(self.path):
                return piece.run(fetches, given)

        return run

    def element(self, tensor: str) -> int:
        """ONNX's number of a tensor's type."""
        if tensor in self.types:
            return self.types[tensor].type.tensor_type.elem_type
        return helper.np_dtype_to_tensor_dtype(self.graph.values(tensor).dtype)

    def _statistic(self, name: str) -> ValueInfoProto:
        values = self.graph.values(name)
        return helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(values.dtype), values.shape
        )


def prefix_of(call: int) -> str:
    return f"finetune_{call}_"


def moment_names(tensors: int) -> list[str]:
    return [prefix_of(place) + name for place in range(tensors) for name in OUTPUTS]


def moments_of(outputs: Sequence[Any]) -> list[PopulationMoments]:
    """outputs: size, mean and variance of every tensor in a row."""
    triples = zip(outputs[::3], outputs[1::3], outputs[2::3], strict=True)
    return [PopulationMoments.of_batch(size / mean.size, mean, spread) for size, mean, spread in triples]
