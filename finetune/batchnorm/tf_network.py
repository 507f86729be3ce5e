"""A network as TensorFlow operations that can be cut at any tensor and run piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import tensorflow as tf

from finetune.batchnorm.activations import ReadBack
from finetune.batchnorm.channel_sums import sums_are_faster
from finetune.batchnorm.graph_function import GraphFunction, Optimised, data_inputs, make_known
from finetune.batchnorm.kernel import kernel_takes
from finetune.batchnorm.layerwise import Segment
from finetune.batchnorm.moment_nodes import Watch, fused, reduced, summed
from finetune.batchnorm.moments import PopulationMoments
from finetune.batchnorm.op_registry import outputs_of
from finetune.batchnorm.plan import Dataflow, Groups, Operation
from finetune.batchnorm.written_nodes import constant

PREFIX = "finetune_moments"

SHARED = (np.float16, np.float32, np.float64)
"""Types that NumPy hands over without a copy; it does not know bfloat16."""


@dataclass(frozen=True)
class WatchedCall:
    """One call of one site in a graph.

    inputs, mask: names of tensors; mask is true where a position counts, or None. axis: that of the channels.
    shape: what is known of the inputs' shape, None for what is not.
    """

    site: int
    inputs: str
    shape: tuple[int | None, ...]
    axis: int
    mask: str | None = None

    @property
    def tensors(self) -> tuple[str, ...]:
        return (self.inputs,) if self.mask is None else (self.inputs, self.mask)


@dataclass(frozen=True, eq=False)
class TFNetwork:
    """An inference graph without function calls around its sites, and where these are.

    nodes: in an order in which they can run; control edges count for nothing, so that nothing is ever assigned.
    library: functions that nodes call. inputs: names of the tensors that are fed. captures: name of a tensor that
    stands for something outside of the graph -> that thing: a variable's handle, or a variable for its value.
    statistics: name of the tensor that stands for a running mean or variance -> its site. Sites are counted from 0
    as `calls` count them.
    """

    nodes: Sequence[tf.compat.v1.NodeDef]
    library: Any
    inputs: tuple[str, ...]
    captures: Mapping[str, Any]
    calls: Sequence[WatchedCall]
    statistics: Mapping[str, int]
    _by_name: dict[str, Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._by_name.update((node.name, node) for node in self.nodes)

    @cached_property
    def dataflow(self) -> Dataflow:
        sites = 1 + max((call.site for call in self.calls), default=-1)
        outputs: dict[str, set[str]] = {node.name: {f"{node.name}:0"} for node in self.nodes}
        for name in [t for node in self.nodes for t in data_inputs(node)] + [
            t for call in self.calls for t in call.tensors
        ]:
            outputs[producer(name)].add(name)
        return Dataflow(
            operations=tuple(
                Operation(
                    tuple(data_inputs(node)),
                    tuple(outputs[node.name]),
                    Groups(self.statistics[t] for t in outputs[node.name] if t in self.statistics),
                )
                for node in self.nodes
            ),
            inputs=self.inputs,
            measured=tuple(
                tuple(name for call in self.calls if call.site == site for name in call.tensors)
                for site in range(sites)
            ),
        )

    def segment(
        self, feeds: Sequence[str], keeps: Sequence[str], sites: Sequence[int], *, precise: bool
    ) -> Segment:
        made = [name for name in keeps if name not in feeds]
        watches = {site: self._watches(site, precise=precise) for site in sites}
        listed = [watch for each in watches.values() for watch in each]
        piece = self.function(
            feeds,
            [*made, *(name for watch in listed for name in watch.tensors)],
            [node for watch in listed for node in watch.nodes],
        )

        def run(tensors: Sequence[Any]) -> tuple[list[Any], list[PopulationMoments]]:
            fed = [tensor_of(t) for t in tensors]
            results = piece(fed)
            known = dict(zip([*feeds, *made], [*fed, *results[: len(made)]], strict=True))
            values = iter(results[len(made) :])
            moments = [
                PopulationMoments.pool(watch.moments(*map(np.asarray, islice(values, 3))) for watch in calls)
                for calls in watches.values()
            ]
            return [known[name] for name in keeps], moments

        return run

    def _watches(self, site: int, *, precise: bool) -> list[Watch]:
        """Of every call of a site."""
        return [
            self._watch(f"{PREFIX}_{number}", call, precise=precise)
            for number, call in enumerate(self.calls)
            if call.site == site
        ]

    def _watch(self, prefix: str, call: WatchedCall, *, precise: bool) -> Watch:
        dtype = self.dtype(call.inputs)
        channels = call.shape[call.axis]
        if (
            call.mask
            or precise
            or not kernel_takes(len(call.shape), call.axis, dtype.name)
            or channels is None
        ):
            return reduced(prefix, call.inputs, call.mask, call.shape, call.axis, dtype, precise=precise)
        if dtype == tf.float32 and len(call.shape) == 4 and all(call.shape[1:]) and sums_are_faster():
            return summed(prefix, call.inputs, call.shape)
        given = (
            constant(f"{prefix}/scale", np.ones(channels, np.float32)),
            constant(f"{prefix}/offset", np.zeros(channels, np.float32)),
        )
        scale, offset = (f"{node.name}:0" for node in given)
        watch, _ = fused(prefix, call.inputs, len(call.shape), dtype, scale=scale, offset=offset)
        return replace(watch, nodes=[*given, *watch.nodes])

    def dtype(self, tensor: str) -> Any:
        """What a tensor of the graph consists of."""
        number = int(tensor.partition(":")[2])
        return tf.as_dtype(outputs_of(self._by_name[producer(tensor)], self._signatures)[number][1])

    @cached_property
    def _signatures(self) -> dict[str, Any]:
        """Of the functions that nodes call, which TensorFlow knows from then on."""
        make_known(self.library.function)
        return {function.signature.name: function.signature for function in self.library.function}

    def function(
        self,
        feeds: Sequence[str],
        fetches: Sequence[str],
        added: Sequence[Any] = (),
        *,
        optimised: Optimised = "barely",
    ) -> Callable[[Sequence[Any]], list[Any]]:
        """A function of the fed tensors, [one a feed], that returns the fetched ones.

        added: operations beside those of the network. optimised: see finetune.batchnorm.graph_function.
        """
        nodes = self._piece(feeds, fetches, added)
        used = {t for node in nodes for t in data_inputs(node)} | set(fetches)
        fed = [name for name in dict.fromkeys(feeds) if name in used]
        captured = [name for name in self.captures if name in used and name not in fed]
        arguments = {name: self.dtype(name).as_datatype_enum for name in [*fed, *captured]}
        piece = GraphFunction(nodes, arguments, fetches, self._signatures, optimised=optimised)

        def call(tensors: Sequence[Any]) -> list[Any]:
            given = dict(zip(feeds, tensors, strict=True))
            # a variable that stands for its value is read anew each time
            outside = [tf.convert_to_tensor(self.captures[name]) for name in captured]
            return piece([*(given[name] for name in fed), *outside])

        return call

    def in_graph(self, fed: Mapping[str, Any], fetches: Sequence[str]) -> dict[str, Any]:
        """Add the operations behind the fetched tensors to the graph that is being built: its tensors, by name."""
        nodes = self._piece(list(fed), fetches)
        definition = tf.compat.v1.GraphDef(node=nodes, library=self.library)
        definition.versions.producer = tf.version.GRAPH_DEF_VERSION
        for node in definition.node:
            node.input[:] = data_inputs(node)
        given = {**{name: tf.convert_to_tensor(thing) for name, thing in self.captures.items()}, **fed}
        used = {t for node in nodes for t in data_inputs(node)}
        present = {node.name for node in nodes}
        inner = [name for name in dict.fromkeys(fetches) if producer(name) in present and name not in fed]
        tensors = tf.graph_util.import_graph_def(
            definition,
            input_map={name: tensor for name, tensor in given.items() if name in used},
            return_elements=inner,
            name="",
        )
        return {**given, **dict(zip(inner, tensors, strict=True))}

    def _piece(self, feeds: Sequence[str], fetches: Sequence[str], added: Sequence[Any] = ()) -> list[Any]:
        """The nodes between, in the network's order and `added` behind them; none of what is fed or captured."""
        stop = {*feeds, *self.captures}
        by_name = {**self._by_name, **{node.name: node for node in added}} if added else self._by_name
        wanted: set[str] = set()
        open_names = [name for name in fetches if name not in stop]
        while open_names:
            name = producer(open_names.pop())
            if name not in wanted:
                wanted.add(name)
                open_names += [t for t in data_inputs(by_name[name]) if t not in stop]
        return [node for name, node in by_name.items() if name in wanted]


def tensor_of(values: Any) -> Any:
    """A tensor of these values; `tf.convert_to_tensor` copies them."""
    # a part of a ReadBack is one to NumPy, and at another address DLPack ends the process
    if isinstance(values, ReadBack) and values.aligned and values.dtype in SHARED:
        return tf.experimental.dlpack.from_dlpack(values.__dlpack__())
    return tf.convert_to_tensor(values)


def producer(tensor: str) -> str:
    """Name of the node that makes a tensor."""
    return tensor.partition(":")[0]
