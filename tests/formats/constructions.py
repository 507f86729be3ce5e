"""Ways in which people write BN, and what looks like it and is none: a network each, and how many sites it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

IMAGE = (8, 8, 3)


@keras.saving.register_keras_serializable("tests")
class ByHand(layers.Layer):
    """y = f(x) with statistics under names that nobody would guess."""

    def __init__(self, form: Callable[..., Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.form = form

    def build(self, shape: Any) -> None:
        between = keras.initializers.RandomUniform(0.3, 1.5, seed=1)
        self.a, self.b, self.c, self.d = (
            self.add_weight(shape=shape[-1:], initializer=between, name=name) for name in "abcd"
        )

    def call(self, x: Any) -> Any:
        return self.form(x, self.a, self.b, self.c, self.d)


def on(shape: tuple[int, ...], *stack: Any) -> keras.Model:
    """A sequence with random values in everything that a symmetry of zeros and ones could hide."""
    net = keras.Sequential([keras.Input(shape), *stack])
    random = np.random.default_rng(3)
    for layer in net._flatten_layers():
        # computed features of Keras' Normalization layer stay as they were adapted
        for weight in [] if isinstance(layer, layers.Normalization) else layer.weights:
            if len(weight.shape) == 1 and "seed" not in weight.path:
                weight.assign(random.uniform(0.3, 1.5, weight.shape))
    return net


def conv(channels: int = 5) -> layers.Layer:
    return layers.Conv2D(channels, 3)


def adapted() -> layers.Layer:
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).normal(2, 3, (50, *IMAGE)))
    return layer


def with_policy(policy: str, *stack: Callable[[], Any]) -> keras.Model:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return on(IMAGE, *(make() for make in stack))
    finally:
        keras.config.set_dtype_policy(before)


def by_hand(form: Callable[..., Any]) -> keras.Model:
    return on(IMAGE, conv(), ByHand(form))


bn = layers.BatchNormalization

CONSTRUCTIONS: dict[str, tuple[Callable[[], keras.Model], int]] = {
    "1-D convolution": (lambda: on((9, 4), layers.Conv1D(6, 3), bn()), 1),
    "3-D convolution": (lambda: on((4, 4, 4, 2), layers.Conv3D(4, 3), bn()), 1),
    "dense": (lambda: on((9,), layers.Dense(7), bn(), layers.ReLU(), layers.Dense(3)), 1),
    "channels along axis 1": (lambda: on(IMAGE, conv(), bn(axis=1)), 1),
    "no gamma, no beta": (lambda: on(IMAGE, conv(), bn(scale=False, center=False)), 1),
    "a single channel": (lambda: on(IMAGE, conv(1), bn()), 1),
    "on the input": (lambda: on(IMAGE, bn(), conv(), layers.ReLU()), 1),
    "two in a row": (lambda: on(IMAGE, conv(), bn(), bn()), 2),
    "two with a scaling between": (lambda: on(IMAGE, conv(), bn(), layers.Rescaling(0.5, 0.1), bn()), 2),
    "one for every time step": (
        lambda: on((3, *IMAGE), layers.TimeDistributed(conv(4)), layers.TimeDistributed(bn())),
        1,
    ),
    "renorm": (lambda: on(IMAGE, conv(), bn(renorm=True)), 1),
    "layer and group norm": (
        lambda: on(IMAGE, conv(4), layers.LayerNormalization(), layers.GroupNormalization(2)),
        0,
    ),
    "adapted normalisation of features": (lambda: on(IMAGE, adapted(), conv()), 0),
    "behind a recurrent loop": (lambda: on((5, 3), layers.GRU(4, return_sequences=True), bn()), 1),
    "behind a recurrent state": (lambda: on((5, 3), layers.LSTM(4), bn(), layers.Dense(2)), 1),
    "(x - m) / sqrt(v + e) * g + b": (
        lambda: by_hand(lambda x, g, b, m, v: (x - m) / ops.sqrt(v + 1e-5) * g + b),
        1,
    ),
    "g * ((x - m) * rsqrt(v + e)) + b": (
        lambda: by_hand(lambda x, g, b, m, v: g * ((x - m) * ops.rsqrt(v + 1e-5)) + b),
        1,
    ),
    "x * s + (b - m s)": (
        lambda: by_hand(
            lambda x, g, b, m, v: x * (g / ops.sqrt(v + 1e-5)) + (b - m * g / ops.sqrt(v + 1e-5))
        ),
        1,
    ),
    "(x - m) * (v + e) ** -1/2": (
        lambda: by_hand(lambda x, g, b, m, v: (x - m) * ops.power(v + 1e-5, -0.5)),
        1,
    ),
    "a standard deviation, not a variance": (lambda: by_hand(lambda x, g, b, m, v: (x - m) / v), 0),
    "a bend between mean and scale": (
        lambda: by_hand(lambda x, g, b, m, v: ops.relu(x - m) * g / ops.sqrt(v + 1e-5)),
        0,
    ),
    "mixed bfloat16": (lambda: with_policy("mixed_bfloat16", conv, bn, layers.ReLU, conv, bn), 2),
    "bfloat16": (lambda: with_policy("bfloat16", conv, bn, layers.ReLU), 1),
    "float64": (lambda: with_policy("float64", conv, bn, layers.ReLU), 1),
}
