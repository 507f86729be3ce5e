"""A network as TensorFlow operations that can be cut at any tensor and run piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from finetune.batchnorm.batch_moments import batch_moments
from finetune.batchnorm.layerwise import Segment
from finetune.batchnorm.moments import PopulationMoments
from finetune.batchnorm.plan import Dataflow, Groups, Operation


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
        watched = [[call for call in self.calls if call.site == site] for site in sites]
        piece = self.function(
            feeds,
            lambda tensor: (
                [tensor(name) for name in made],
                [[_moments(call, tensor, precise) for call in calls] for calls in watched],
            ),
            [*made, *(name for calls in watched for call in calls for name in call.tensors)],
        )

        def run(tensors: Sequence[Any]) -> tuple[list[Any], list[PopulationMoments]]:
            fed = [tf.convert_to_tensor(t) for t in tensors]
            new, parts = piece(fed)
            known = dict(zip([*feeds, *made], [*fed, *new], strict=True))
            pooled = [
                PopulationMoments.pool(
                    PopulationMoments.of_batch(float(count), np.asarray(mean), np.asarray(variance))
                    for count, mean, variance in calls
                )
                for calls in parts
            ]
            return [known[name] for name in keeps], pooled

        return run

    def function(self, feeds: Sequence[str], build: Any, fetches: Sequence[str]) -> Any:
        """A compiled function of the fed tensors, [one a feed], that returns what `build(tensor by name)` builds.

        fetches: every name that `build` asks for.
        """
        return _Traced(
            tf.function(self.imported(feeds, build, fetches), autograph=False, reduce_retracing=True)
        )

    def imported(
        self, feeds: Sequence[str], build: Any, fetches: Sequence[str]
    ) -> Callable[[Sequence[Any]], Any]:
        """The same, not compiled: it adds its operations to whatever graph it is called in."""
        definition = self._piece(feeds, fetches)
        present = {node.name for node in definition.node}
        used = {t for node in definition.node for t in data_inputs(node)}
        inner = [name for name in dict.fromkeys(fetches) if producer(name) in present and name not in feeds]

        def call(fed: Sequence[Any]) -> Any:
            outside = {
                name: tf.convert_to_tensor(thing) for name, thing in self.captures.items() if name in used
            }
            given = dict(zip(feeds, fed, strict=True))
            tensors = tf.graph_util.import_graph_def(
                definition,
                input_map={name: t for name, t in {**given, **outside}.items() if name in used},
                return_elements=inner,
                name="",
            )
            known = {**given, **dict(zip(inner, tensors, strict=True))}
            return build(known.__getitem__)

        return call

    def _piece(self, feeds: Sequence[str], fetches: Sequence[str]) -> tf.compat.v1.GraphDef:
        """The nodes between: no control edges, no placeholder of what is fed or captured."""
        stop = {*feeds, *self.captures}
        wanted: set[str] = set()
        open_names = [name for name in fetches if name not in stop]
        while open_names:
            name = producer(open_names.pop())
            if name not in wanted:
                wanted.add(name)
                open_names += [t for t in data_inputs(self._by_name[name]) if t not in stop]
        definition = tf.compat.v1.GraphDef(library=self.library)
        definition.versions.producer = tf.version.GRAPH_DEF_VERSION
        for node in self.nodes:
            if node.name in wanted:
                copy = definition.node.add()
                copy.CopyFrom(node)
                del copy.input[:]
                copy.input.extend(data_inputs(node))
        return definition


class _Traced:
    """Traces once for batches of any size where the first axis is the batch; TensorFlow traces what differs anew."""

    def __init__(self, function: Any) -> None:
        self.function, self.ready = function, False

    def __call__(self, fed: Sequence[Any]) -> Any:
        if not self.ready:
            images = fed[0].shape[0]
            specs = [
                tf.TensorSpec([None if i == 0 and n == images else n for i, n in enumerate(t.shape)], t.dtype)
                for t in fed
            ]
            self.function.get_concrete_function(specs)
            self.ready = True
        return self.function(list(fed))


def _moments(call: WatchedCall, tensor: Any, precise: bool) -> Any:
    inputs = tensor(call.inputs)
    inputs.set_shape(call.shape)
    return batch_moments(inputs, call.mask and tensor(call.mask), call.axis, precise=precise)


def data_inputs(node: Any) -> list[str]:
    """Names of the tensors that a node reads, each with its number, "a:0"."""
    return [name if ":" in name else f"{name}:0" for name in node.input if not name.startswith("^")]


def producer(tensor: str) -> str:
    """Name of the node that makes a tensor."""
    return tensor.partition(":")[0]
