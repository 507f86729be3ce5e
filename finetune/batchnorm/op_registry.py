"""Which operations this TensorFlow has; asked of a module that TensorFlow does not document, and of that here alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorflow.python.framework import op_def_registry


def described(op: str) -> Any:
    """The OpDef of an operation; None where this TensorFlow has none, as for one of a library that is not loaded."""
    return op_def_registry.get(op)


def unregistered(op: str) -> str:
    """What to say of an operation that this TensorFlow has not."""
    return (
        f"operation {op!r} is unknown to this TensorFlow; load the library that has it (tf.load_op_library) "
        "before the model"
    )


def outputs_of(node: Any, signatures: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Per output of a NodeDef, in the order of their numbers: how a FunctionDef names it, and its dtype's number.

    signatures: those of functions that may be called in place of an operation, by name.
    """
    signature = signatures.get(node.op) or described(node.op)
    defaults = {each.name: each.default_value for each in signature.attr}

    def attribute(name: str) -> Any:
        return node.attr[name] if name in node.attr else defaults[name]

    found: list[tuple[str, int]] = []
    for argument in signature.output_arg:
        if argument.type_list_attr:
            types = list(attribute(argument.type_list_attr).list.type)
        else:
            number = attribute(argument.number_attr).i if argument.number_attr else 1
            types = [argument.type or attribute(argument.type_attr).type] * number
        found += [(f"{node.name}:{argument.name}:{place}", kind) for place, kind in enumerate(types)]
    return found
