"""Under JAX: the images of every training batch on all devices of this machine, by keras.distribution.DataParallel.

Weights and running statistics are arrays that every device holds whole, and the mean over a batch is over all of it
wherever its images lie. So a site sees the whole batch with nothing to be synchronised, and `fit` stays Keras' own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras

from finetune.errors import InputError
from finetune.keras_backend import on_tensorflow


def devices_for(asked: Sequence[str] | None) -> tuple[str, ...]:
    """As CPU:0; all that JAX computes on where none are asked for. Raises InputError where they are not there."""
    if on_tensorflow():
        raise InputError(
            "distribute.strategy: data_parallel is for KERAS_BACKEND=jax; set it, or take strategy: mirrored"
        )
    found = tuple(name.upper() for name in keras.distribution.list_devices())
    missing = [name for name in asked or () if name not in found]
    if missing:
        raise InputError(
            f"distribute.devices: {', '.join(missing)}: not on this machine; found {', '.join(found)}"
        )
    return tuple(asked or found)


@contextmanager
def divided_among(devices: Sequence[str]) -> Iterator[None]:
    """Inside the block variables are made for these devices, and the batches of `fit` are divided among them."""
    with keras.distribution.DataParallel(devices=[name.lower() for name in devices]).scope():
        yield


@contextmanager
def undivided() -> Iterator[None]:
    """Inside the block every device computes whole batches: the last one of a test set has any number of images."""
    given = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(given)


class UndividedValidation(keras.callbacks.Callback):
    """The same for the validation inside of `fit`, which has no other place to say so.

    Keras asks for the distribution batch by batch (tests/jax_run_laws.py).
    """

    def on_test_begin(self, logs: Any = None) -> None:
        self.given = keras.distribution.distribution()
        keras.distribution.set_distribution(None)

    def on_test_end(self, logs: Any = None) -> None:
        keras.distribution.set_distribution(self.given)
