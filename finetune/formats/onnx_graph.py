"""The graph of an ONNX model: what runs, what each node reads, and which constants it holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

STANDARD = ("", "ai.onnx")


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The branches of a condition, the body of a loop."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def reads(node: NodeProto) -> list[str]:
    """Names of the tensors that a node reads, those that its subgraphs take from outside included."""
    outside = [name for graph in subgraphs(node) for name in sorted(_taken_from_outside(graph))]
    return [name for name in node.input if name] + outside


def _taken_from_outside(graph: GraphProto) -> set[str]:
    made = {each.name for each in (*graph.input, *graph.initializer)}
    made |= {name for node in graph.node for name in node.output}
    used = {name for node in graph.node for name in reads(node)} | {each.name for each in graph.output}
    return used - made


def attribute(node: NodeProto, name: str, default: float) -> float:
    """A number that a node carries."""
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


@dataclass(frozen=True, eq=False)
class OnnxGraph:
    """One model in memory, external data included."""

    model: ModelProto
    constants: dict[str, TensorProto | AttributeProto] = field(init=False)

    def __post_init__(self) -> None:
        held: dict[str, TensorProto | AttributeProto] = {t.name: t for t in self.model.graph.initializer}
        for node in self.model.graph.node:
            if node.op_type == "Constant" and node.domain in STANDARD:
                held.update(
                    (node.output[0], a) for a in node.attribute if a.name in ("value", "value_floats")
                )
        object.__setattr__(self, "constants", held)

    @cached_property
    def opset(self) -> int:
        return max((each.version for each in self.model.opset_import if each.domain in STANDARD), default=0)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Those that are fed; before IR version 4 weights were inputs with a default."""
        return tuple(each.name for each in self.model.graph.input if each.name not in self.constants)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        return tuple(each.name for each in self.model.graph.output)

    @cached_property
    def live(self) -> list[NodeProto]:
        """The nodes that an inference runs, in the order of the file."""
        return self.between((), self.outputs)

    @cached_property
    def producer(self) -> dict[str, int]:
        """Name of a tensor -> the place of the node that makes it."""
        return {
            name: place for place, node in enumerate(self.model.graph.node) for name in node.output if name
        }

    def between(self, feeds: Sequence[str], fetches: Sequence[str]) -> list[NodeProto]:
        """The nodes that make the fetched tensors out of the fed ones, in the order of the file."""
        stop, wanted = {*feeds}, set[int]()
        open_names = [name for name in fetches if name not in stop]
        while open_names:
            place = self.producer.get(open_names.pop())
            if place is not None and place not in wanted:
                wanted.add(place)
                open_names += [name for name in reads(self.model.graph.node[place]) if name not in stop]
        return [self.model.graph.node[place] for place in sorted(wanted)]

    def values(self, name: str) -> NDArray:
        """What a constant holds; the file's dtype and shape."""
        held = self.constants[name]
        if isinstance(held, TensorProto):
            return numpy_helper.to_array(held)
        if held.name == "value":
            return numpy_helper.to_array(held.t)
        return np.array(held.floats, np.float32)

    def set_values(self, name: str, values: NDArray) -> None:
        """Hold other values; the file stays as it is."""
        held = self.constants[name]
        if isinstance(held, TensorProto):
            held.CopyFrom(numpy_helper.from_array(values, held.name))
        elif held.name == "value":
            held.t.CopyFrom(numpy_helper.from_array(values, held.t.name))
        else:
            held.floats[:] = values.tolist()
