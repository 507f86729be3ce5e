"""Where a model is cut in two: in front of the first layer that a stage trains, or that draws random numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

TOLERANCE = 1e-2
"""Share of the largest feature by which training mode may differ: rounding differs less, dropout more."""


class NotCacheable(Exception):
    """Why the features of a stage cannot be kept. Never an error of the person's: the stage runs uncached."""


@dataclass(frozen=True, eq=False)
class Cut:
    """One model in two that share its layers, and with them its variables.

    features: from images to the tensor in front of the first layer that changes or draws; always the same for
    the same image. head: from there to the outputs; training it trains the model.
    """

    features: keras.Model
    head: keras.Model


def cut_in_two(model: keras.Model, backbone: keras.Model) -> Cut:
    """Cut `model` behind its nested `backbone`, as `trainable` is set on its layers now.

    Layers of the head that hold nothing and draw nothing, such as pooling, go with the backbone: what they
    hand on is smaller. Raises NotCacheable where the backbone changes or draws in training, and where the head
    needs more than one tensor of what lies in front of it.
    """
    first = next((layer for layer in model.layers if _changes(layer) or _draws(layer)), None)
    if first is None:
        raise NotCacheable("nothing is trained")
    places = [id(layer) for layer in model.layers]
    if places.index(id(first)) <= places.index(id(backbone)):
        reason = "changes while training" if _changes(first) else "draws random numbers while training"
        raise NotCacheable(f"{first.name} {reason}")
    tensor = first.input
    try:
        cut = Cut(keras.Model(model.input, tensor, name="features"), keras.Model(tensor, model.output))
    except ValueError as error:
        raise NotCacheable(f"the head needs more than the one tensor that {first.name} takes") from error
    if None in tensor.shape[1:]:
        raise NotCacheable(f"the features in front of {first.name} have no fixed shape: {tensor.shape}")
    return cut


def _changes(layer: keras.Layer) -> bool:
    """Whether anything it holds may change in training.

    Both flags count: a site that follows the batch may have no trainable variable, and a variable trains by its
    own flag inside a layer that is frozen.
    """
    below = layer._flatten_layers()
    return any(each.trainable and each.weights for each in below) or any(v.trainable for v in layer.weights)


def _draws(layer: keras.Layer) -> bool:
    return any(variable.name == "seed_generator_state" for variable in layer.variables)


def refuse_other_features_in_training(features: keras.Model, images: Any) -> None:
    """Raise NotCacheable where training mode gives other features than inference mode.

    Some layers draw random numbers without a seed of their own (keras-cv's StochasticDepth), and no flag says so.
    images: model inputs; two are enough.
    """
    still = np.asarray(ops.convert_to_numpy(features(images, training=False)), np.float64)
    training = np.asarray(ops.convert_to_numpy(features(images, training=True)), np.float64)
    if not np.max(np.abs(still - training)) <= TOLERANCE * np.max(np.abs(still)):
        raise NotCacheable("the backbone gives other features in training mode than in inference mode")
