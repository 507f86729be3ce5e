"""Operations that are added to a graph under a prefix, written once in TensorFlow's words and copied from then on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from numpy.typing import NDArray

from finetune.batchnorm.graph_function import data_inputs

Template = Sequence[Any]
"""NodeDefs; what is to come from outside stands there as placeholders."""


def template(build: Callable[..., None], **given: tuple[Any, Any]) -> Template:
    """What `build` builds from placeholders of these names, (dtype, shape) each; its results have names of its own."""
    with tf.Graph().as_default() as scratch:
        build(**{name: tf.compat.v1.placeholder(*each, name=name) for name, each in given.items()})
    return tuple(node for node in scratch.as_graph_def().node if node.name not in given)


def placed(nodes: Template, prefix: str, **given: str) -> list[Any]:
    """The template's operations under a prefix, with tensors of the graph in place of the placeholders."""
    outside = {f"{name}:0": tensor for name, tensor in given.items()}
    copies = []
    for node in nodes:
        copy = type(node)()
        copy.CopyFrom(node)
        copy.name = f"{prefix}/{node.name}"
        copy.input[:] = [outside.get(tensor, f"{prefix}/{tensor}") for tensor in data_inputs(node)]
        copies.append(copy)
    return copies


def constant(name: str, values: NDArray) -> Any:
    """An operation of that name that gives the values."""
    node = tf.compat.v1.NodeDef(name=name, op="Const")
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(values))
    node.attr["dtype"].type = node.attr["value"].tensor.dtype
    return node


def placeholder(name: str, dtype: Any) -> Any:
    """An operation of that name that stands for what is fed."""
    node = tf.compat.v1.NodeDef(name=name, op="Placeholder")
    node.attr["dtype"].type = dtype.as_datatype_enum
    return node
