"""The flat graph of a SavedModel as a network that can be cut at its sites."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from finetune.batchnorm.conv_names import ConvNames, names_of_convolution
from finetune.batchnorm.tf_network import TFNetwork, WatchedCall
from finetune.batchnorm.written_nodes import placed, template
from finetune.formats.entrance import Input
from finetune.formats.flat_graph import FlatGraph
from finetune.formats.site_call import SiteCall

PREFIX = "finetune_site"
FUNCTIONS, COUNT = "finetune_function", itertools.count()
LEFT_OUT = "_class"
"""With the operation that another is placed beside left out, the graph cannot be imported."""


@dataclass(frozen=True)
class Known:
    """What is known of a tensor before anything runs.

    shape: None for what is open, or as a whole. behind: the convolution that makes it, where one does.
    """

    shape: tuple[int | None, ...] | None
    dtype: Any
    behind: ConvNames | None


def bare_network(
    graph: FlatGraph, functions: Any, inputs: Mapping[str, Input], captures: Mapping[str, Any]
) -> TFNetwork:
    """No site watched yet. functions: those of the MetaGraph, of which the graph may still call some."""
    nodes = [_definition(node) for node in graph.nodes.values()]
    library = _reachable(functions, nodes)
    _rename(library, nodes)
    # outside of any graph, as that alone makes functions known to the process; without, running one ends it
    tf.graph_util.import_graph_def(tf.compat.v1.GraphDef(library=library), name="")
    return TFNetwork(
        nodes=nodes,
        library=library,
        inputs=tuple(inputs[name].tensor for name in graph.inputs),
        captures=captures,
        calls=(),
        statistics={},
    )


def _definition(node: Any) -> Any:
    definition = tf.compat.v1.NodeDef()
    definition.CopyFrom(node.definition)
    definition.name, definition.device = node.name, ""
    definition.attr.pop(LEFT_OUT, None)
    del definition.input[:]
    definition.input.extend(node.inputs)
    return definition


def _reachable(functions: Any, nodes: Sequence[Any]) -> Any:
    """The functions that are still called; a model may carry those of its whole training beside."""
    by_name = {f.signature.name: f for f in functions.function}
    library = tf.compat.v1.GraphDef().library
    seen: set[str] = set()
    stack = [name for node in nodes for name in _called(node)]
    while stack:
        name = stack.pop()
        if name in by_name and name not in seen:
            seen.add(name)
            library.function.add().CopyFrom(by_name[name])
            stack += [called for node in by_name[name].node_def for called in _called(node)]
    return library


def _rename(library: Any, nodes: Sequence[Any]) -> None:
    """Give functions names that nothing else in this process has: TensorFlow knows one function of a name only."""
    made = f"{FUNCTIONS}_{next(COUNT)}"
    names = {function.signature.name: f"{made}_{function.signature.name}" for function in library.function}
    inner = [node for function in library.function for node in function.node_def]
    for node in (*nodes, *inner):
        node.op = names.get(node.op, node.op)
        for reference in _references(node):
            reference.name = names.get(reference.name, reference.name)
    for function in library.function:
        function.signature.name = names[function.signature.name]


def _called(node: Any) -> Iterator[str]:
    """Names of the functions that an operation calls."""
    yield node.op
    yield from (reference.name for reference in _references(node))


def _references(node: Any) -> Iterator[Any]:
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func
        yield from value.list.func


def trace(network: TFNetwork, inputs: Mapping[str, Input], names: Sequence[str]) -> dict[str, Known]:
    """What is known of some tensors when inputs are as the signature says."""
    by_tensor = {each.tensor: each for each in inputs.values()}
    specs = [tf.TensorSpec(by_tensor[t].shape, by_tensor[t].dtype) for t in network.inputs]
    known: dict[str, Known] = {}

    def note(fed: Sequence[Any]) -> list[Any]:
        found = network.in_graph(dict(zip(network.inputs, fed, strict=True)), names)
        naming = _naming(found)
        known.update({name: _known(found[name], naming) for name in names})
        return [found[name] for name in names]

    tf.function(note, autograph=False).get_concrete_function(specs)
    return known


def _known(tensor: Any, name: Callable[[Any], str]) -> Known:
    shape = tensor.shape
    return Known(
        None if shape.rank is None else tuple(shape), tensor.dtype, names_of_convolution(tensor, name)
    )


def _naming(found: Mapping[str, Any]) -> Callable[[Any], str]:
    """How the network calls a tensor of the graph that is being traced: what is fed or captured has another name."""
    given = {tensor.name: name for name, tensor in found.items() if hasattr(tensor, "op")}
    return lambda tensor: given.get(tensor.name, tensor.name)


def watched_network(
    bare: TFNetwork, sites: Sequence[Sequence[SiteCall]], known: Mapping[str, Known]
) -> TFNetwork:
    """The same with its sites: per site its calls, the variables of the first being those of all."""
    nodes = list(bare.nodes)
    calls: list[WatchedCall] = []
    for number, site in enumerate(sites):
        for call in site:
            if call.axis is None:
                name = f"{PREFIX}_{len(calls)}"
                nodes += rows(name, call, known[call.inputs].dtype)
                calls.append(WatchedCall(number, f"{name}/rows:0", (None, call.channels), -1))
            else:
                calls.append(WatchedCall(number, call.inputs, shape_at(call, known), call.axis))
    return TFNetwork(
        nodes=nodes,
        library=bare.library,
        inputs=bare.inputs,
        captures=bare.captures,
        calls=calls,
        statistics={
            t: n for n, site in enumerate(sites) for call in site for t in (call.mean, call.variance)
        },
    )


def shape_at(call: SiteCall, known: Mapping[str, Known]) -> tuple[int | None, ...]:
    """Of the inputs of a call with one axis of channels, whose number its statistics tell in any case."""
    # where not even the rank is known it is a fused operation's, which takes images only
    shape = list(known[call.inputs].shape or (None, None, None, None))
    shape[call.axes[0]] = call.channels
    return tuple(shape)


def rows(name: str, call: SiteCall, dtype: Any) -> list[Any]:
    """Operations that make `<name>/rows`, (-1, channels), of a call's inputs."""

    def build(inputs: Any) -> None:
        tf.reshape(inputs, [-1, call.channels], name="rows")

    return placed(template(build, inputs=(dtype, None)), name, inputs=call.inputs)
