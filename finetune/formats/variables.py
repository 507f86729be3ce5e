"""Which checkpoint keys hold a variable: asked of both loaders, since each goes its own way to them.

`tf.saved_model.load` goes by the object graph; sessions, and so TensorFlow Serving, run the restore operation of
the graph. A Keras 3 export holds every variable twice (keras#23553) and each loader reads another copy: whoever
changes one alone changes the model for some of its users only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.protobuf import trackable_object_graph_pb2

from finetune.errors import ModelError
from finetune.formats.entrance import Entrance
from finetune.formats.flat_graph import FlatGraph, Node, operation_of
from finetune.formats.inlining import Inliner
from finetune.formats.tensor_bundle import TensorBundle

OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
HANDLES = ("VarHandleOp",)
REFERENCES = ("VariableV2", "Variable")
"""TensorFlow 1's reference variables: the operation itself is the value."""


@dataclass(frozen=True, eq=False)
class StoredVariable:
    """A variable that the network reads.

    tensor: its handle, or itself where it is a reference variable. name: as its maker called it. keys: every
    checkpoint key that some loader fills it from. session: whether the session loader fills it.
    """

    tensor: str
    name: str
    keys: tuple[str, ...]
    value: NDArray
    session: bool


def stored_variables(
    meta_graph: Any, entrance: Entrance, graph: FlatGraph, bundle: TensorBundle, folder: Path
) -> dict[str, StoredVariable]:
    """Tensor of the graph -> the variable behind it. Raises ModelError where keys are missing or disagree."""
    by_object = _keys_by_object(bundle)
    by_restore = _keys_by_restore(meta_graph, folder)
    found: dict[str, StoredVariable] = {}
    for name, node in graph.nodes.items():
        tensor = f"{name}:0"
        number = entrance.captures.get(tensor)
        if node.op in (*HANDLES, *REFERENCES) or (node.op == "Placeholder" and number in by_object):
            object_key, full_name = (
                by_object.get(number, (None, None)) if number is not None else (None, None)
            )
            keys = tuple(dict.fromkeys(k for k in (object_key, by_restore.get(name)) if k is not None))
            label = full_name or node.attribute("shared_name").s.decode("utf-8", "replace") or name
            value = _agreed_value(label, keys, bundle, folder)
            found[tensor] = StoredVariable(tensor, label, keys, value, name in by_restore)
    return found


def _keys_by_object(bundle: TensorBundle) -> dict[int, tuple[str, str]]:
    """Number in the object graph -> (checkpoint key, full name); the numbers are those of saved_model.pb."""
    if OBJECT_GRAPH_KEY not in bundle:
        return {}
    objects = trackable_object_graph_pb2.TrackableObjectGraph()
    objects.ParseFromString(bundle.read_string(OBJECT_GRAPH_KEY))
    return {
        number: (attribute.checkpoint_key, attribute.full_name)
        for number, node in enumerate(objects.nodes)
        for attribute in node.attributes
        if attribute.name == "VARIABLE_VALUE"
    }


def names_by_key(bundle: TensorBundle) -> dict[str, str]:
    """Every key of a variable -> what its maker called it, which is the key itself where there are no objects."""
    named = dict(_keys_by_object(bundle).values())
    return named or {key: key for key in bundle.keys if bundle.dtype(key) is not None}


def _keys_by_restore(meta_graph: Any, folder: Path) -> dict[str, str]:
    """Name of a variable's operation -> the key that the restore operation assigns to it."""
    restore = meta_graph.saver_def.restore_op_name
    if not restore:
        return {}
    nodes = Inliner(meta_graph).everything([operation_of(restore) or restore])
    found: dict[str, str] = {}
    for node in nodes.values():
        if node.op in ("AssignVariableOp", "Assign"):
            source = _restored_tensor(node.inputs[1], nodes)
            if source is not None:
                key, part = source
                if part:
                    raise ModelError(
                        f"{folder}: {key!r} is restored in slices (a partitioned variable); "
                        "save the model again with its variables in one piece"
                    )
                found[_variable_of(node.inputs[0], nodes)] = key
    return found


def _restored_tensor(tensor: str, nodes: Mapping[str, Node]) -> tuple[str, str] | None:
    """(key, slice) that a tensor was read from a checkpoint by; None where it was not."""
    node = nodes[operation_of(tensor)]
    while node.op in ("Identity", "Cast", "Reshape"):
        tensor = node.inputs[0]
        node = nodes[operation_of(tensor)]
    if node.op != "RestoreV2":
        return None
    number = int(tensor.rpartition(":")[2])
    keys, slices = (_constant(nodes[operation_of(t)]) for t in node.inputs[1:3])
    return keys[number].decode(), slices[number].decode()


def _constant(node: Node) -> Any:
    return tf.make_ndarray(node.attribute("value").tensor)


def _variable_of(tensor: str, nodes: Mapping[str, Node]) -> str:
    name = operation_of(tensor)
    while nodes[name].op == "Identity":
        name = operation_of(nodes[name].inputs[0])
    return name


def _agreed_value(name: str, keys: tuple[str, ...], bundle: TensorBundle, folder: Path) -> NDArray:
    missing = [key for key in keys if key not in bundle]
    if not keys or missing:
        raise ModelError(f"{folder}: variable {name!r} is not in the checkpoint; save the model again")
    values = [bundle.read(key) for key in keys]
    if any(value.tobytes() != values[0].tobytes() for value in values):
        raise ModelError(
            f"{folder}: the copies of {name!r} disagree ({', '.join(keys)}), so that the two loaders of "
            "TensorFlow serve different models; export it again"
        )
    return values[0]
