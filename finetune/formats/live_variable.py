"""A variable of a SavedModel in memory, where its value can be changed without the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from finetune.formats.variables import StoredVariable


@dataclass(frozen=True, eq=False)
class LiveVariable:
    """keys: all that the file keeps it under. shape, dtype: as the file has them."""

    name: str
    keys: tuple[str, ...]
    variable: Any

    @property
    def values(self) -> NDArray:
        """A copy, in the file's shape and dtype."""
        return np.array(self.variable.numpy())

    def assign(self, values: ArrayLike) -> None:
        """Of as many values, in whatever shape; rounded to the file's dtype."""
        self.variable.assign(
            np.reshape(values, self.variable.shape).astype(self.variable.dtype.as_numpy_dtype)
        )


def live(stored: Iterable[StoredVariable]) -> dict[str, LiveVariable]:
    """By tensor of the graph; tensors that stand for one variable share it."""
    by_keys: dict[tuple[str, ...], LiveVariable] = {}
    found = {}
    for variable in stored:
        if variable.keys not in by_keys:
            with tf.device("CPU:0"):
                made = tf.Variable(variable.value, trainable=False)
            by_keys[variable.keys] = LiveVariable(variable.name, variable.keys, made)
        found[variable.tensor] = by_keys[variable.keys]
    return found


def captures(variables: Mapping[str, LiveVariable], references: Iterable[str]) -> dict[str, Any]:
    """What stands outside of the graph for each tensor: a handle, or, for a reference variable, the variable."""
    by_value = set(references)
    return {
        tensor: each.variable if tensor in by_value else each.variable.handle
        for tensor, each in variables.items()
    }
