"""Sites inside loops, and inside conditions that only the data decide: where no cut reaches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from finetune.formats.flat_graph import FlatGraph, Node, operation_of
from finetune.formats.fused_sites import find_fused
from finetune.formats.inlining import Inliner
from finetune.formats.probing import find_composite

PREFIX = "finetune_body"
BRANCHING = ("If", "StatelessIf", "Case", "StatelessCase")
LOOPING = ("While", "StatelessWhile")


def hidden_sites(meta_graph: Any, graph: FlatGraph, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Tensors of the variables that hold their means. shapes: of the variables, by tensor."""
    found: dict[str, None] = {}
    for node in graph.nodes.values():
        for function, arguments in _bodies(node):
            found.update(dict.fromkeys(_means(meta_graph, function, arguments, graph, shapes)))
    return list(found)


def _bodies(node: Node) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The functions that an operation may run, each with the tensors that it is given."""
    if node.op not in (*BRANCHING, *LOOPING):
        return
    arguments = node.inputs[1:] if node.op in BRANCHING else node.inputs
    for value in node.definition.attr.values():
        functions = [value.func] if value.HasField("func") else value.list.func
        for function in functions:
            yield function.name, arguments


def _means(
    meta_graph: Any,
    function: str,
    arguments: tuple[str, ...],
    graph: FlatGraph,
    shapes: Mapping[str, tuple[int, ...]],
) -> Iterator[str]:
    placeholders = [_placeholder(f"{PREFIX}_{number}") for number in range(len(arguments))]
    inside = dict(
        zip((f"{p.name}:0" for p in placeholders), (_source(graph, a) for a in arguments), strict=True)
    )
    known = {tensor: shapes[outside] for tensor, outside in inside.items() if outside in shapes}
    call = tf.compat.v1.NodeDef(name=PREFIX, op="StatefulPartitionedCall")
    call.attr["f"].func.name = function
    call.input.extend(p.name for p in placeholders)
    body = Inliner(meta_graph, [*placeholders, call]).flatten(
        {tensor: tensor for tensor in inside if tensor not in known},
        {str(number): f"{PREFIX}:{number}" for number in range(_outputs(meta_graph, function))},
    )
    for site in (*find_fused(body, known).sites, *find_composite(body, known)):
        yield inside[site.mean]
    yield from (inside.get(mean, mean) for mean in hidden_sites(meta_graph, body, known))


def _placeholder(name: str) -> Any:
    return tf.compat.v1.NodeDef(name=name, op="Placeholder")


def _source(graph: FlatGraph, tensor: str) -> str:
    """The tensor behind those that only hand it on."""
    while operation_of(tensor) in graph.nodes and graph.node(tensor).op == "Identity":
        tensor = graph.node(tensor).inputs[0]
    return tensor


def _outputs(meta_graph: Any, function: str) -> int:
    library = meta_graph.graph_def.library.function
    return next(len(f.signature.output_arg) for f in library if f.signature.name == function)
