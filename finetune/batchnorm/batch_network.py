"""A network in which every site normalises with its batch (precise BN), written into the graph of its inference.

Where a mean is expected is not taken from what is stored, so that the same images give the same bytes again: the first
images alone tell it, and each batch that is far from it is run once more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import tensorflow as tf

from finetune.batchnorm.batch_sites import BatchCall, Written, write
from finetune.batchnorm.gram_kernel import CANCELS
from finetune.batchnorm.graph_function import Optimised, data_inputs
from finetune.batchnorm.moments import Float64, PopulationMoments
from finetune.batchnorm.passes import Run
from finetune.batchnorm.tf_network import TFNetwork, producer, tensor_of

PREFIX = "finetune_batch"

PILOT = 4
"""Images that tell where means are to be expected."""

FAR = 16.0
"""Squared distance of a mean from where it was expected, in variances, beyond which a batch is run again: up to there
the sum of squares, and with it its rounding, is at most seventeen times what it is about the mean itself."""

TRIES = 8
"""How often a batch is run at most until no mean is far from where it was expected. A second run follows where the
first tells the means; more only where one site's rounding spoils what the next ones see."""

GammaBeta = tuple[Float64, Float64]


@dataclass(frozen=True, eq=False)
class BatchNetwork:
    """network: with sites that normalise with what they store. calls: all of them, per site in the graph's order.

    any_size: whether the first images of a batch can be run in its place: there is one input, and it takes any number.
    """

    network: TFNetwork
    calls: Sequence[BatchCall]
    any_size: bool
    _graphs: dict[Any, _Graph] = field(init=False, default_factory=dict)

    def run(
        self,
        gamma_and_beta: Sequence[GammaBeta],
        precise: Collection[int],
        first: Sequence[Any],
        running: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> Run:
        """What measures one batch, a tensor an input.

        gamma_and_beta: per call, of the normalised values. precise: sites whose moments are reduced in float64.
        first: the first batch. running: entered around every run of TensorFlow.
        """
        measuring = _Measuring(self, gamma_and_beta, frozenset(precise), running)
        if self.any_size:
            measuring([tensor[:PILOT] for tensor in first])
        return measuring

    def graph(self, without: frozenset[int], precise: frozenset[int]) -> _Graph:
        """The function that runs a batch, made once. without: calls that do not go the pointwise way."""
        key = without, precise
        if key not in self._graphs:
            self._graphs[key] = _Graph.of(self.network, self.calls, without, precise)
        return self._graphs[key]


@dataclass(frozen=True, eq=False)
class _Graph:
    written: Sequence[Written]
    function: Any

    @classmethod
    def of(
        cls,
        network: TFNetwork,
        calls: Sequence[BatchCall],
        without: Collection[int],
        precise: Collection[int],
    ) -> _Graph:
        written = [
            write(f"{PREFIX}_{n}", call, pointwise=n not in without, precise=call.site in precise)
            for n, call in enumerate(calls)
        ]
        handed_on = dict(map(_handed_on, calls, written))
        added = [node for each in written for node in each.nodes]
        casts = [node for call, each in zip(calls, written, strict=True) for node in _casts(call, each)]
        nodes = [_reading(node, handed_on) for node in (*network.nodes, *added)]
        whole = TFNetwork([*nodes, *casts], network.library, network.inputs, network.captures, (), {})
        fed = [tensor for each in written for tensor in each.fed.values()]
        fetched = [tensor for each in written for tensor in _fetched(each)]
        # twice the work for TensorFlow, and of use where there is a swish
        optimised: Optimised = "well" if any(node.op == "Sigmoid" for node in network.nodes) else "barely"
        return cls(written, whole.function([*network.inputs, *fed], fetched, optimised=optimised))


def _fetched(written: Written) -> list[str]:
    return [*written.watch.tensors, *(tensor for tensor in (written.off, written.summands) if tensor)]


def _handed_on(call: BatchCall, written: Written) -> tuple[str, str]:
    """The tensor that a call hands on, and that which takes its place."""
    inputs, outputs = call.dtypes
    return call.outputs, written.outputs if inputs == outputs else f"{producer(written.outputs)}/cast:0"


def _casts(call: BatchCall, written: Written) -> Iterator[Any]:
    """What gives the outputs their dtype; nothing where they have it, for it would part them from an activation."""
    inputs, outputs = call.dtypes
    if inputs != outputs:
        name = producer(_handed_on(call, written)[1])
        node = tf.compat.v1.NodeDef(name=name, op="Cast", input=[written.outputs])
        node.attr["SrcT"].type, node.attr["DstT"].type = inputs.as_datatype_enum, outputs.as_datatype_enum
        yield node


def _reading(node: Any, instead: Mapping[str, str]) -> Any:
    """The operation, reading other tensors instead of some."""
    if not any(tensor in instead for tensor in data_inputs(node)):
        return node
    copy = type(node)()
    copy.CopyFrom(node)
    copy.input[:] = [instead.get(tensor, tensor) for tensor in data_inputs(node)]
    return copy


@dataclass(eq=False)
class _Measuring:
    """A pass over batches: what it learns from one it uses for the next."""

    network: BatchNetwork
    gamma_and_beta: Sequence[GammaBeta]
    precise: frozenset[int]
    running: Callable[[], AbstractContextManager[Any]]
    without: frozenset[int] = frozenset()
    about: dict[int, Float64] = field(default_factory=dict)
    fed: list[Any] | None = None

    def __call__(self, batch: Sequence[Any]) -> list[PopulationMoments]:
        for _ in range(TRIES):
            found = self._once(batch)
            if not any(call.doubt for call in found):
                break
            self._learn(found)
        return self._by_site(found)

    def _once(self, batch: Sequence[Any]) -> list[_Call]:
        graph = self.network.graph(self.without, self.precise)
        if self.fed is None:
            self.fed = [tensor for n, written in enumerate(graph.written) for tensor in self._fed(n, written)]
        with self.running():
            values = iter([np.asarray(each) for each in graph.function([*map(tensor_of, batch), *self.fed])])
        return [self._call(n, written, values) for n, written in enumerate(graph.written)]

    def _fed(self, n: int, written: Written) -> Iterator[Any]:
        gamma, beta = self.gamma_and_beta[n]
        given = {"gamma": gamma, "beta": beta, "about": self._about(n)}
        for role in written.fed:
            yield tf.constant(given[role], written.dtype)

    def _about(self, n: int) -> Float64:
        return self.about.get(n, np.zeros(self.network.calls[n].channels))

    def _call(self, n: int, written: Written, values: Iterator[Any]) -> _Call:
        moments = written.watch.moments(*islice(values, 3))
        off = next(values).astype(np.float64) if written.off else None
        spread = moments.variance + self.network.calls[n].epsilon
        doubt = off is not None and bool(np.any(np.square(off) > FAR * spread))
        if written.summands:
            doubt = bool(np.any(next(values) > CANCELS * spread))
        if off is not None and not written.precise:
            moments = PopulationMoments(moments.count, moments.mean + self._about(n), moments.m2)
        return _Call(moments, doubt, off)

    def _learn(self, found: Sequence[_Call]) -> None:
        """Where means are to be expected, as float32 has it; which calls do not go the pointwise way."""
        self.fed = None
        for n, call in enumerate(found):
            if call.off is not None:
                self.about[n] = (self._about(n) + call.off).astype(np.float32).astype(np.float64)
            elif call.doubt:
                self.without |= {n}

    def _by_site(self, found: Sequence[_Call]) -> list[PopulationMoments]:
        pools: dict[int, list[PopulationMoments]] = {}
        for call, each in zip(self.network.calls, found, strict=True):
            pools.setdefault(call.site, []).append(each.moments)
        return [PopulationMoments.pool(pools[site]) for site in sorted(pools)]


@dataclass(frozen=True, eq=False)
class _Call:
    """off: by how much the mean is off where it was expected; None where nothing was."""

    moments: PopulationMoments
    doubt: bool
    off: Float64 | None
