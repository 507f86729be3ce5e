"""What a signature captures that is no variable: lookup tables and constants, which TensorFlow's loader restores."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import tensorflow as tf

from finetune.errors import ModelError
from finetune.formats.entrance import Entrance
from finetune.formats.flat_graph import FlatGraph, operation_of


def captured_tables(
    graph: FlatGraph, entrance: Entrance, variables: Collection[str], folder: Path
) -> dict[str, Any]:
    """Tensor of the graph -> the thing itself. variables: tensors that stand for one. Raises ModelError."""
    captured = [
        tensor
        for tensor in entrance.captures
        if operation_of(tensor) in graph.nodes
        and tensor not in variables
        and graph.node(tensor).op != "Const"
    ]
    loose = [
        name
        for name, node in graph.nodes.items()
        if "HashTable" in node.op and f"{name}:0" not in entrance.captures
    ]
    if loose:
        raise ModelError(
            f"{folder}: lookup table {loose[0]!r} of TensorFlow 1: nothing says what fills it; "
            "export the model again with TensorFlow 2"
        )
    if not captured:
        return {}
    things = dict(zip(entrance.captures, concrete_function(entrance, folder).captured_inputs, strict=True))
    return {tensor: things[tensor] for tensor in captured}


def concrete_function(entrance: Entrance, folder: Path) -> Any:
    """The function behind an entrance as `tf.saved_model.load` restores it; holds the whole model."""
    loaded = tf.saved_model.load(str(folder))
    if entrance.signature:
        function = loaded.signatures[entrance.name]
    else:
        function = getattr(loaded, entrance.name).concrete_functions[entrance.trace]
    # the signatures of a restored model do not keep it alive, and with it go its tables
    function.whole_model = loaded
    return function
