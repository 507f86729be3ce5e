"""Functions that run their Python code: so that whoever replaced a site's call sees each call, with numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras


@contextmanager
def functions_run_eagerly() -> Iterator[None]:
    """Inside the block a `tf.function` of a model's own is Python like the rest; other backends have none.

    Otherwise it may have been traced before, and then calls what it was traced with.
    """
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)
