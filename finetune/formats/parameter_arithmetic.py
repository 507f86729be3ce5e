"""What a network computes from its variables alone, redone in NumPy float64 with whatever values one puts in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from finetune.formats.flat_graph import FlatGraph, Node

Array = Any
Values = Mapping[str, Array]

READS = ("ReadVariableOp", "VariableV2", "Variable")


class UnknownOperationError(Exception):
    """An operation that is not part of a normalisation as anyone has written one."""


def _constant(node: Node, _: Sequence[Array]) -> Array:
    value = tf.make_ndarray(node.attribute("value").tensor)
    return value if value.dtype.kind in "iub" else value.astype(np.float64)


def _integers(values: Array) -> tuple[int, ...]:
    return tuple(int(v) for v in np.ravel(values))


def _pass(_: Node, inputs: Sequence[Array]) -> Array:
    return inputs[0]


def _by(function: Callable[..., Array]) -> Callable[[Node, Sequence[Array]], Array]:
    return lambda _, inputs: function(*inputs)


OPERATIONS: dict[str, Callable[[Node, Sequence[Array]], Array]] = {
    "Const": _constant,
    **dict.fromkeys(
        ("Identity", "Cast", "StopGradient", "Snapshot", "PreventGradient", "EnsureShape"), _pass
    ),
    "Mul": _by(np.multiply),
    **dict.fromkeys(("Add", "AddV2", "BiasAdd"), _by(np.add)),
    "Sub": _by(np.subtract),
    **dict.fromkeys(("RealDiv", "Div"), _by(np.divide)),
    "Rsqrt": _by(lambda x: 1 / np.sqrt(x)),
    "Sqrt": _by(np.sqrt),
    **dict.fromkeys(("Reciprocal", "Inv"), _by(np.reciprocal)),
    "Pow": _by(np.power),
    "Neg": _by(np.negative),
    "Square": _by(np.square),
    "Maximum": _by(np.maximum),
    "Minimum": _by(np.minimum),
    "Reshape": _by(lambda x, shape: np.reshape(x, _integers(shape))),
    "ExpandDims": _by(lambda x, axis: np.expand_dims(x, int(axis))),
    "Squeeze": _by(np.squeeze),
    "BroadcastTo": _by(lambda x, shape: np.broadcast_to(x, _integers(shape))),
    "Tile": _by(lambda x, times: np.tile(x, _integers(times))),
    "Transpose": _by(lambda x, order: np.transpose(x, _integers(order))),
    "Pack": lambda node, inputs: np.stack(inputs, int(node.attribute("axis").i)),
}


def evaluate(graph: FlatGraph, tensor: str, values: Values, known: dict[str, Array]) -> Array:
    """One tensor that depends on no image. values: what each read of a variable gives. known: results, kept.

    Raises UnknownOperationError.
    """
    if tensor not in known:
        node = graph.node(tensor)
        if tensor in values:
            known[tensor] = values[tensor]
        elif node.op in OPERATIONS and tensor.endswith(":0"):
            inputs = [evaluate(graph, t, values, known) for t in node.inputs]
            known[tensor] = OPERATIONS[node.op](node, inputs)
        else:
            raise UnknownOperationError(node.op)
    return known[tensor]


def reads_behind(graph: FlatGraph, tensor: str) -> tuple[str, ...]:
    """The reads of variables that a tensor depends on."""
    found: dict[str, None] = {}
    seen: set[str] = set()
    stack = [tensor]
    while stack:
        current = stack.pop()
        if current in seen:
            continue
        seen.add(current)
        node = graph.node(current)
        if node.op in READS:
            found[current] = None
        else:
            stack.extend(node.inputs)
    return tuple(found)


def variable_behind(graph: FlatGraph, read: str) -> str:
    """The tensor of the variable (handle, or reference) that a read reads."""
    node = graph.node(read)
    tensor = node.inputs[0] if node.op == "ReadVariableOp" else read
    while graph.node(tensor).op == "Identity":
        tensor = graph.node(tensor).inputs[0]
    return tensor
