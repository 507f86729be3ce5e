"""Set all random seeds, and leave TensorFlow the functions that it has made ready."""

from __future__ import annotations

import random

import keras
import tensorflow as tf
from tensorflow.python.eager import context


def set_seeds(seed: int) -> None:
    """As `keras.utils.set_random_seed`, but for the states of operations that draw by themselves.

    To begin these anew TensorFlow forgets every function it has optimised, which takes as long as a tenth of a cell to
    make up for; no graph that is kept has such an operation.
    """
    found, tf.random.set_seed = tf.random.set_seed, _set_seed
    try:
        keras.utils.set_random_seed(seed)
    finally:
        tf.random.set_seed = found


def _set_seed(seed: int) -> None:
    eager = context.context()
    eager._seed, eager._rng = seed, random.Random(seed)
