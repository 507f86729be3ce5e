"""A deployed network as one flat list of operations: no functions, no control edges.

A tensor has the name `operation:number` throughout, number 0 included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from finetune.batchnorm.op_registry import described
from finetune.errors import ModelError


def tensor_name(reference: str) -> str:
    """TensorFlow leaves `:0` away."""
    return reference if ":" in reference else reference + ":0"


def operation_of(tensor: str) -> str:
    return tensor.rpartition(":")[0]


@dataclass(frozen=True, eq=False)
class Node:
    """One operation. inputs: tensors, without control inputs. definition: the NodeDef, for its attributes."""

    name: str
    op: str
    inputs: tuple[str, ...]
    definition: Any

    def attribute(self, name: str) -> Any:
        """Its AttrValue; files leave those away that are what the operation has by default."""
        if name in self.definition.attr:
            return self.definition.attr[name]
        return next(a.default_value for a in described(self.op).attr if a.name == name)


@dataclass(frozen=True, eq=False)
class FlatGraph:
    """What outputs depend on.

    nodes: by name, each behind those that it takes its inputs from. inputs, outputs: the signature's names ->
    tensors. written: resources that serving assigns to, in whatever branch, whether outputs depend on it or not.
    """

    nodes: Mapping[str, Node]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    written: frozenset[str] = frozenset()

    def node(self, tensor: str) -> Node:
        return self.nodes[operation_of(tensor)]

    @cached_property
    def data(self) -> frozenset[str]:
        """Names of the operations whose result depends on the inputs, or on chance."""
        fed = {operation_of(tensor) for tensor in self.inputs.values()}
        found: set[str] = set()
        for name, node in self.nodes.items():
            if name in fed or "Random" in node.op or any(operation_of(t) in found for t in node.inputs):
                found.add(name)
        return frozenset(found)

    def depends(self, tensor: str) -> bool:
        """Whether a tensor depends on the inputs."""
        return operation_of(tensor) in self.data

    @cached_property
    def consumers(self) -> Mapping[str, tuple[str, ...]]:
        """Tensor -> names of the operations that take it, once for each time."""
        found: dict[str, list[str]] = {}
        for name, node in self.nodes.items():
            for tensor in node.inputs:
                found.setdefault(tensor, []).append(name)
        return {tensor: tuple(names) for tensor, names in found.items()}

    def count(self, *ops: str) -> int:
        return sum(node.op in ops for node in self.nodes.values())


def in_order(nodes: Mapping[str, Node], outputs: Mapping[str, str]) -> dict[str, Node]:
    """The nodes that outputs depend on, each behind its inputs (a loop's way back left aside). Raises ModelError."""
    ordered: dict[str, Node] = {}
    entered: set[str] = set()
    stack = [operation_of(tensor) for tensor in reversed(list(outputs.values()))]
    while stack:
        name = stack[-1]
        if name not in nodes:
            raise ModelError(f"the graph names an operation {name!r} that it does not have")
        if name in entered:
            ordered.setdefault(name, nodes[stack.pop()])
            continue
        entered.add(name)
        before = (operation_of(tensor) for tensor in reversed(nodes[name].inputs))
        stack.extend(other for other in before if other not in entered)
    return ordered
