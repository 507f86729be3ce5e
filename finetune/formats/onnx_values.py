"""Where the values of constants lie in the bytes of an ONNX file, read without a schema (onnx.proto)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from finetune.wire import BYTES, Buffer, Field, fields

MODEL_GRAPH = 7
NODE, INITIALIZER = 1, 5
NODE_OUTPUT, NODE_ATTRIBUTE = 2, 5
ATTRIBUTE_NAME, ATTRIBUTE_TENSOR, ATTRIBUTE_FLOATS = 1, 5, 7
FLOAT_DATA, TENSOR_NAME, RAW_DATA, DOUBLE_DATA = 4, 8, 9, 10
"""Numbers of fields in onnx.proto. The other fields of values hold numbers whose length depends on the value."""


@dataclass(frozen=True)
class Span:
    """Bytes from start up to, without, end."""

    start: int
    end: int


def spans(data: Buffer, names: Collection[str]) -> dict[str, list[Span]]:
    """Per constant, initialiser or output of a Constant node: the bytes that are its values, little-endian, in order.

    None in number for what lies elsewhere, or in a form whose length depends on the values. Raises DamagedError.
    """
    found: dict[str, list[Span]] = {}
    for graph in _within(data, Field(0, BYTES, 0, 0, len(data)), MODEL_GRAPH):
        for tensor in _within(data, graph, INITIALIZER):
            if (name := _text(data, tensor, TENSOR_NAME)) in names:
                found[name] = _of_tensor(data, tensor)
        for node in _within(data, graph, NODE):
            if (name := _text(data, node, NODE_OUTPUT)) in names:
                found[name] = _of_node(data, node)
    return found


def _within(data: Buffer, message: Field, number: int) -> Iterator[Field]:
    return (field for field in fields(data, message.start, message.end) if field.number == number)


def _text(data: Buffer, message: Field, number: int) -> str:
    """The first string of a number; empty where there is none."""
    text = next(_within(data, message, number), None)
    return "" if text is None else bytes(data[text.start : text.end]).decode("utf-8", "replace")


def _of_tensor(data: Buffer, tensor: Field) -> list[Span]:
    return [
        Span(field.start, field.end)
        for field in fields(data, tensor.start, tensor.end)
        if field.number in (FLOAT_DATA, RAW_DATA, DOUBLE_DATA)
    ]


def _of_node(data: Buffer, node: Field) -> list[Span]:
    for attribute in _within(data, node, NODE_ATTRIBUTE):
        name = _text(data, attribute, ATTRIBUTE_NAME)
        if name == "value":
            return [
                s for tensor in _within(data, attribute, ATTRIBUTE_TENSOR) for s in _of_tensor(data, tensor)
            ]
        if name == "value_floats":
            return [Span(field.start, field.end) for field in _within(data, attribute, ATTRIBUTE_FLOATS)]
    return []
