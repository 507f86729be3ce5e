"""Models that change when they are called: a stray training=True moves running statistics in service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from finetune.doctor.finding import Finding


def calling(model: keras.Model, images: NDArray) -> Iterator[Finding]:
    """Every variable is given back what it held before."""
    calls: dict[str, Callable[[], Any]] = {
        "model(x)": lambda: model(images),
        "model(x, training=False)": lambda: model(images, training=False),
        "model.predict(x)": lambda: model.predict(images, verbose=0),
    }
    moved = {words: paths for words, call in calls.items() if (paths := _moved_by(model, call))}
    if moved:
        paths = next(iter(moved.values()))
        yield Finding(
            "changes-when-called",
            "serious",
            f"{' and '.join(moved)} changed {len(paths)} variables: {', '.join(paths[:3])}",
            "every request moves the statistics that the next one is answered with",
            "self.bn(x, training=training)    # pass the flag of call() on, never a constant True",
            tuple(paths),
        )


def _moved_by(model: keras.Model, call: Callable[[], Any]) -> list[str]:
    with given_back(model) as kept:
        call()
        return [
            variable.path
            for variable, value in kept
            # seeds of dropout count how often they were drawn from, and are no part of what is predicted
            if "seed_generator" not in variable.path
            and not np.array_equal(np.array(variable), value, equal_nan=True)
        ]


@contextmanager
def given_back(model: keras.Model) -> Iterator[list[tuple[Any, NDArray]]]:
    """Every variable holds afterwards what it held before: there are models that change when they are called."""
    kept = [(variable, np.array(variable)) for variable in model.weights]
    try:
        yield kept
    finally:
        for variable, value in kept:
            if not np.array_equal(np.array(variable), value, equal_nan=True):
                variable.assign(value)
