"""Which operations this TensorFlow has; asked of a module that TensorFlow does not document, and of that here alone."""

from __future__ import annotations

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
