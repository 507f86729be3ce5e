"""Batches made while the network works on those before, with nothing left to wait for when they end."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf


def read_ahead(batches: tf.data.Dataset) -> tf.data.Dataset:
    """The same batches in the same order; what is mapped, zipped or repeated from them is read so, too.

    tf.data's autotuning is off. Its thread sleeps twice as long each time, up to a minute, and whoever reads to the
    end waits for it: `fit` and `evaluate` returned up to once more their own time after the last batch (issue 5).
    What is to be read by as many threads as suit, is read by one a core, of 16 at most.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)
