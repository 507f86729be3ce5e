"""What each of TensorFlow's loaders finds in a SavedModel's variables; they go by different ways to them.

`tf.saved_model.load` goes by the object graph, a session (and TensorFlow Serving) by the restore operation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from finetune.formats.entrance import Entrance
from finetune.formats.lookup_tables import concrete_function


def by_objects(
    folder: Path, tags: Iterable[str], entrance: Entrance, tensors: Iterable[str]
) -> dict[str, NDArray]:
    """By tensor of the graph, as `tf.saved_model.load` restores them."""
    if not entrance.captures:
        return _by_name(folder, tags, tensors)
    handles = dict(zip(entrance.captures, concrete_function(entrance, folder).captured_inputs, strict=True))
    return {tensor: _read(handles[tensor]) for tensor in tensors}


def _by_name(folder: Path, tags: Iterable[str], tensors: Iterable[str]) -> dict[str, NDArray]:
    """TensorFlow 1 knows no objects: its variables are those of the graph, reference variables left aside."""
    named = {variable.name: variable for variable in tf.saved_model.load(str(folder), list(tags)).variables}
    return {tensor: named[tensor].numpy() for tensor in tensors if tensor in named}


def _read(handle: Any) -> NDArray:
    dtype = handle._handle_data.shape_and_type[0].dtype
    return np.asarray(tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype))


def by_session(folder: Path, tags: Iterable[str], wanted: Mapping[str, Any]) -> dict[str, NDArray]:
    """By tensor of the graph, as a session restores them. wanted: the dtype, None for a reference variable's."""
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        tf.compat.v1.saved_model.load(session, list(tags), str(folder))
        reads = {
            tensor: graph.get_tensor_by_name(tensor)
            if dtype is None
            else tf.raw_ops.ReadVariableOp(resource=graph.get_tensor_by_name(tensor), dtype=dtype)
            for tensor, dtype in wanted.items()
        }
        return session.run(reads)
