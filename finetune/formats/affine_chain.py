"""Operations in a row that scale and move one tensor by parameters alone: y = scale * x + offset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune.formats.flat_graph import FlatGraph
from finetune.formats.parameter_arithmetic import UnknownOperationError, Values, evaluate

SCALING = ("Mul", "RealDiv", "Div")
MOVING = ("Add", "AddV2", "BiasAdd", "Sub")
TRANSPARENT = ("Identity", "Cast", "StopGradient")
LONGEST = 10
"""Operations; the longest BN that anyone writes has five."""


@dataclass(frozen=True)
class Step:
    """One operation. data, parameter: the tensor that depends on the images and the one that does not.

    parameter is None where the operation hands its input on. first: whether the data is its left operand.
    """

    name: str
    op: str
    data: str
    parameter: str | None
    first: bool


def chains_from(graph: FlatGraph, start: str) -> Iterator[tuple[Step, ...]]:
    """The chain that begins with one operation, one step longer each time; it ends where a result goes two ways."""
    chain: tuple[Step, ...] = ()
    step = _step(graph, start)
    while step is not None and len(chain) < LONGEST:
        chain = (*chain, step)
        if step.parameter is not None:
            yield chain
        takers = graph.consumers.get(f"{step.name}:0", ())
        if len(takers) != 1:
            return
        step = _step(graph, takers[0])


def chain_of(graph: FlatGraph, operations: Iterable[str]) -> tuple[Step, ...]:
    """The chain again of operations that were found to be one."""
    return tuple(step for step in (_step(graph, name) for name in operations) if step is not None)


def _step(graph: FlatGraph, name: str) -> Step | None:
    node = graph.nodes[name]
    if node.op in TRANSPARENT and len(node.inputs) == 1:
        return Step(name, node.op, node.inputs[0], None, True)
    if node.op not in (*SCALING, *MOVING) or len(node.inputs) != 2:
        return None
    left, right = node.inputs
    if graph.depends(left) == graph.depends(right):
        return None
    first = graph.depends(left)
    return Step(name, node.op, *((left, right) if first else (right, left)), first)


def scale_and_offset(graph: FlatGraph, chain: tuple[Step, ...], values: Values) -> tuple[Any, Any]:
    """(scale, offset) in float64 for the given values of the variables. Raises UnknownOperationError."""
    scale: Any = np.ones(())
    offset: Any = np.zeros(())
    known: dict[str, Any] = {}
    for step in chain:
        if step.parameter is None:
            continue
        parameter = _in_layout(graph, step, evaluate(graph, step.parameter, values, known))
        scale, offset = _applied(step, parameter, scale, offset)
    return scale, offset


def _applied(step: Step, parameter: Any, scale: Any, offset: Any) -> tuple[Any, Any]:
    if step.op == "Mul":
        return scale * parameter, offset * parameter
    if step.op in SCALING:
        if not step.first:
            raise UnknownOperationError("a division by the data")
        return scale / parameter, offset / parameter
    if step.op != "Sub":
        return scale, offset + parameter
    return (scale, offset - parameter) if step.first else (-scale, parameter - offset)


def _in_layout(graph: FlatGraph, step: Step, parameter: Any) -> Any:
    """A bias added channels first stands along the second axis, whatever its own shape says."""
    layout = graph.nodes[step.name].attribute("data_format").s if step.op == "BiasAdd" else b""
    return np.reshape(parameter, (-1, 1, 1)) if layout == b"NCHW" else parameter
