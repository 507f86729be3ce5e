"""What computes under Keras: TensorFlow, or JAX where KERAS_BACKEND says so. TensorFlow reads the data either way."""

from __future__ import annotations

import importlib.util
import os
from contextlib import suppress

from finetune.errors import InputError

BACKENDS = ("tensorflow", "jax")


def require_backend(*, any_known: bool) -> None:
    """To be called before Keras is imported, by what runs on any backend that is known here, or on TensorFlow alone.

    Raises InputError where Keras would have none of these.
    """
    wanted = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if wanted not in BACKENDS:
        raise InputError(f"KERAS_BACKEND: expected tensorflow or jax, got {wanted}")
    if wanted != "tensorflow" and not any_known:
        raise InputError(
            f"KERAS_BACKEND: only finetune run and finetune evaluate compute on {wanted}; run this one again with "
            "KERAS_BACKEND=tensorflow, to which model files are the same"
        )
    if importlib.util.find_spec(wanted) is None:
        raise InputError(
            f"KERAS_BACKEND: {wanted} is not installed; pip install 'finetune[{wanted}]', or unset KERAS_BACKEND"
        )


def on_tensorflow() -> bool:
    """Whether what Keras computes is a graph of TensorFlow, which can be cut, converted and saved as one."""
    import keras

    return bool(keras.backend.backend() == "tensorflow")


def leave_accelerators_to_keras() -> None:
    """Under JAX TensorFlow only reads images; it would take all memory of every GPU at its first operation."""
    if on_tensorflow():
        return
    import tensorflow as tf

    # it has them already: whoever called it before us
    with suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")
