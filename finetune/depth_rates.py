"""Learning rates by depth: what was pretrained first moves least (Howard & Ruder 2018, arXiv:1801.06146)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras


def shares_by_depth(backbone: keras.Model, first: float) -> dict[int, float]:
    """Of the learning rate, by id() of each variable of the backbone, since paths may repeat.

    `first` at its first layer that has any, and from there on more by equal factors, in call order, so that the layer
    after the last would have the whole rate.
    """
    deep = [layer for layer in backbone._flatten_layers() if layer._trainable_variables]
    return {
        id(variable): first ** (1 - place / len(deep))
        for place, layer in enumerate(deep)
        for variable in layer._trainable_variables
    }


def scale_rates(optimizer: keras.optimizers.Optimizer, shares: Mapping[int, float]) -> None:
    """Let each variable have its share of the rate, and those that are not named all of it.

    Done on the object and not by a class of ours, so that a saved model has an optimizer of plain Keras. The optimizer
    is built. Weight decay, which Keras takes before the step, keeps the whole rate.
    """
    by_place = [shares.get(id(variable), 1.0) for variable in optimizer._trainable_variables]
    whole = optimizer.update_step

    def update_step(gradient: Any, variable: Any, learning_rate: Any) -> None:
        whole(gradient, variable, learning_rate * by_place[optimizer._get_variable_index(variable)])

    optimizer.update_step = update_step
