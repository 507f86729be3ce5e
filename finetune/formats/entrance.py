"""Where images go in and predictions come out: a signature, or, where there is none, the object's own function.

TF-Hub's second format has no signature, only `__call__(images, training)`: its function is called here with
training=False.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorflow as tf

from finetune.errors import ModelError
from finetune.formats.flat_graph import tensor_name
from finetune.formats.inlining import CALLS
from finetune.formats.meta_graph import children, chosen_signature

CALLABLES = ("__call__", "call", "serve")
PREFIX = "finetune_entrance"


@dataclass(frozen=True)
class Input:
    """shape: None where it is open; None as a whole where not even the rank is known. dtype: NumPy's name."""

    tensor: str
    shape: tuple[int | None, ...] | None
    dtype: str

    @property
    def batch_size(self) -> int | None:
        """How many images at a time, where that is fixed."""
        return self.shape[0] if self.shape else None


@dataclass(frozen=True, eq=False)
class Entrance:
    """How a MetaGraph is served.

    signature: whether it is one; else `name` is a function. inputs: by name. outputs: name -> tensor of the top
    level. captures: top-level tensor -> number in the object graph of what it captures, in the order of the
    function's. trace: which of the function's traces it is. truths: `training` inputs, held at False. extra:
    operations that the MetaGraph does not have.
    """

    name: str
    signature: bool
    inputs: Mapping[str, Input]
    outputs: Mapping[str, str]
    captures: Mapping[str, int]
    trace: int = 0
    truths: Mapping[str, bool] = field(default_factory=dict)
    extra: tuple[Any, ...] = ()


def find_entrance(meta_graph: Any, wanted: str | None, folder: Path) -> Entrance:
    """The signature wanted, the default one, or a function of the object. Raises ModelError."""
    name = chosen_signature(meta_graph, wanted, folder)
    return _by_signature(meta_graph, name, folder) if name is not None else _by_function(meta_graph, folder)


def _by_signature(meta_graph: Any, name: str, folder: Path) -> Entrance:
    signature = meta_graph.signature_def[name]
    encoded = [key for key, info in [*signature.inputs.items(), *signature.outputs.items()] if not info.name]
    if encoded:
        raise ModelError(
            f"{folder}: {', '.join(encoded)} of signature {name!r}: sparse tensors cannot be served here"
        )
    inputs = {
        key: Input(tensor_name(info.name), _shape(info.tensor_shape), tf.as_dtype(info.dtype).name)
        for key, info in sorted(signature.inputs.items())
    }
    outputs = {key: tensor_name(info.name) for key, info in sorted(signature.outputs.items())}
    images, truths = _split(inputs)
    return Entrance(name, True, images, outputs, _captures(meta_graph, name), truths=truths)


def _split(inputs: Mapping[str, Input]) -> tuple[dict[str, Input], dict[str, bool]]:
    """What has to be fed, those with a batch first, and by tensor the switches that stay off in service."""
    switches = [name for name, each in inputs.items() if each.dtype == "bool" and "training" in name]
    fed = {name: each for name, each in inputs.items() if name not in switches}
    in_order = sorted(fed.items(), key=lambda item: item[1].shape == ())
    return dict(in_order), {inputs[name].tensor: False for name in switches}


def _captures(meta_graph: Any, signature: str) -> dict[str, int]:
    """What the call of a signature's function in the graph hands over beside the inputs."""
    objects = meta_graph.object_graph_def
    all_signatures = children(objects).get("signatures")
    number = children(objects, all_signatures).get(signature) if all_signatures is not None else None
    if number is None:
        return {}
    node = objects.nodes[number]
    names = [node.bare_concrete_function.concrete_function_name, *node.function.concrete_functions]
    function = next(name for name in names if name)
    bound = list(objects.concrete_functions[function].bound_inputs)
    for call in meta_graph.graph_def.node:
        if bound and call.op in CALLS and call.attr["f"].func.name == function:
            references = [r for r in call.input if not r.startswith("^")][-len(bound) :]
            return dict(zip(map(tensor_name, references), bound, strict=True))
    return {}


def _by_function(meta_graph: Any, folder: Path) -> Entrance:
    objects = meta_graph.object_graph_def
    callables = {
        name: objects.nodes[number].function.concrete_functions
        for name, number in children(objects).items()
        if objects.nodes[number].WhichOneof("kind") == "function"
    }
    for name in CALLABLES:
        traces = [f for f in callables.get(name, ()) if not _trains(objects.concrete_functions[f])]
        if traces:
            function = min(traces, key=lambda f: _arity(meta_graph, f))
            return _calling(meta_graph, name, function, list(callables[name]).index(function))
    raise ModelError(
        f"{folder}: no signature and no function {' or '.join(CALLABLES)} to measure through; "
        "export it again with a signature"
    )


def _trains(concrete: Any) -> bool:
    """Whether this trace was made with a Python True, which only `training` ever is."""
    return b"\x01" in _booleans(concrete.canonicalized_input_signature)


def _booleans(value: Any) -> bytes:
    """All Python booleans inside a structured value, a byte for each."""
    if value.WhichOneof("kind") == "bool_value":
        return bytes([value.bool_value])
    inner = [*value.tuple_value.values, *value.list_value.values, *value.dict_value.fields.values()]
    inner += [pair.value for pair in value.named_tuple_value.values]
    return b"".join(map(_booleans, inner))


def _arity(meta_graph: Any, function: str) -> int:
    return next(
        len(f.signature.input_arg)
        for f in meta_graph.graph_def.library.function
        if f.signature.name == function
    )


def _calling(meta_graph: Any, name: str, function: str, trace: int) -> Entrance:
    """An entrance by a call of our own to one concrete function."""
    body = next(f for f in meta_graph.graph_def.library.function if f.signature.name == function)
    bound = list(meta_graph.object_graph_def.concrete_functions[function].bound_inputs)
    call = tf.compat.v1.NodeDef(name=PREFIX, op="StatefulPartitionedCall")
    call.attr["f"].func.name = function
    placeholders = [_placeholder(body, number) for number in range(len(body.signature.input_arg))]
    call.input.extend(node.name for node in placeholders)
    own = len(placeholders) - len(bound)
    inputs = {
        argument.name: _argument(body, number, placeholders[number].name)
        for number, argument in enumerate(body.signature.input_arg[:own])
    }
    images, truths = _split(inputs)
    return Entrance(
        name=name,
        signature=False,
        inputs=images,
        outputs={f"output_{n}": f"{PREFIX}:{n}" for n in range(len(body.signature.output_arg))},
        captures={
            tensor_name(node.name): number for node, number in zip(placeholders[own:], bound, strict=True)
        },
        trace=trace,
        truths=truths,
        extra=(*placeholders, call),
    )


def _argument(body: Any, number: int, placeholder: str) -> Input:
    attributes = body.arg_attr[number].attr if number in body.arg_attr else {}
    shapes = attributes["_output_shapes"].list.shape if "_output_shapes" in attributes else ()
    dtype = tf.as_dtype(body.signature.input_arg[number].type).name
    return Input(tensor_name(placeholder), _shape(shapes[0]) if shapes else None, dtype)


def _placeholder(body: Any, number: int) -> Any:
    node = tf.compat.v1.NodeDef(name=f"{PREFIX}_input_{number}", op="Placeholder")
    node.attr["dtype"].type = body.signature.input_arg[number].type
    return node


def _shape(shape: Any) -> tuple[int | None, ...] | None:
    if shape.unknown_rank:
        return None
    return tuple(None if dimension.size < 0 else int(dimension.size) for dimension in shape.dim)
