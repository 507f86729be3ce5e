"""keras-cv's augmentation layers, made to repeat: every batch draws from a seed of its own.

As they are, they do not: some ignore their seed, a seed of 0 counts as none, and what they draw with
`tf.random.uniform` starts over with every epoch inside tf.data.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras_cv
import tensorflow as tf
from keras_cv.core import FactorSampler, NormalFactorSampler, UniformFactorSampler

from finetune.datasets.augment import Augmentation
from finetune.errors import DataError

Layers = list[Callable[..., tf.Tensor]]

# what keras-cv's own base classes take, and what the recipe says elsewhere
NOT_OPTIONS = {
    "self",
    "kwargs",
    "seed",
    "value_range",
    "target_size",
    "bounding_box_format",
    "segmentation_classes",
}


def augmented(
    batches: tf.data.Dataset, augmentations: Sequence[Augmentation], image_size: int, seed: int
) -> tf.data.Dataset:
    """Batches of (uint8 images, labels) -> (float32 images 0..255, labels), every epoch drawn anew.

    What a batch is turned into is decided by the seed, the epoch and the batch's position, not by how many
    batches were read before. Raises DataError for options that a layer does not take.
    """
    generator = tf.random.Generator.from_seed(seed)
    layers = build_layers(augmentations, image_size, generator)

    def augment(batch: tuple[tf.Tensor, tf.Tensor], batch_seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        generator.reset_from_seed(batch_seed)
        images, labels = batch
        images = tf.cast(images, tf.float32)
        for layer in layers:
            images = layer(images, training=True)
        return tf.ensure_shape(
            tf.clip_by_value(images, 0.0, 255.0), (None, image_size, image_size, 3)
        ), labels

    seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
    # one batch at a time: all batches share one generator
    return tf.data.Dataset.zip(batches, seeds).map(augment)


def build_layers(
    augmentations: Sequence[Augmentation], image_size: int, generator: tf.random.Generator
) -> Layers:
    """The keras-cv layers, all drawing from `generator`. Raises DataError with every problem found."""
    layers: Layers = []
    problems: list[str] = []
    for augmentation in augmentations:
        try:
            layers.append(build_layer(augmentation, image_size, generator))
        except DataError as error:
            problems.extend(error.problems)
    if problems:
        raise DataError(problems)
    return layers


def build_layer(augmentation: Augmentation, image_size: int, generator: tf.random.Generator) -> Any:
    make = getattr(keras_cv.layers, augmentation.layer)
    takes = inspect.signature(make.__init__).parameters
    check_names(augmentation, takes)
    said: dict[str, Any] = {"value_range": (0, 255), "target_size": (image_size, image_size)}
    said = {name: value for name, value in said.items() if name in takes}
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in augmentation.options.items()}
    try:
        # float32 also under mixed precision, whose half floats cannot tell 200.5 from 200.45
        layer = make(**given, **said, dtype="float32")
        draw_from(generator, layer)
        layer(tf.zeros((1, image_size, image_size, 3)), training=True)
    except Exception as error:  # keras-cv raises whatever a wrong value leads to
        reason = textwrap.shorten(str(error), 300) or type(error).__name__
        raise DataError(
            f"data.augment: {augmentation.layer} with {augmentation.options}: {reason}"
        ) from error
    return layer


def check_names(augmentation: Augmentation, takes: Mapping[str, inspect.Parameter]) -> None:
    options = {name: parameter for name, parameter in takes.items() if name not in NOT_OPTIONS}
    problems = [
        f"data.augment: {augmentation.layer} has no option {name!r}; it takes {', '.join(options)}"
        for name in augmentation.options
        if name not in options
    ]
    problems += [
        f"data.augment: {augmentation.layer} needs the option {name!r}"
        for name, parameter in options.items()
        if parameter.default is parameter.empty and name not in augmentation.options
    ]
    if problems:
        raise DataError(problems)


def draw_from(generator: tf.random.Generator, layer: Any) -> None:
    """Let a layer and all layers inside it draw from one generator."""
    for part in layer._flatten_layers():
        # one image after another: keras-cv's vectorized form took six times as long for RandomCropAndResize
        part.auto_vectorize = False
        for name, value in list(vars(part).items()):
            if isinstance(value, tf.random.Generator):
                setattr(part, name, generator)
            elif isinstance(value, (UniformFactorSampler, NormalFactorSampler)):
                setattr(part, name, DrawnFactor(value, generator))


class DrawnFactor(FactorSampler):
    """The distribution of a keras-cv factor, drawn from a generator that outlives an epoch."""

    def __init__(
        self, like: UniformFactorSampler | NormalFactorSampler, generator: tf.random.Generator
    ) -> None:
        self.like = like
        self.generator = generator

    def __call__(self, shape: Any = (), dtype: str = "float32") -> tf.Tensor:
        like = self.like
        if isinstance(like, UniformFactorSampler):
            return self.generator.uniform(shape, like.lower, like.upper, dtype)
        drawn = self.generator.normal(shape, like.mean, like.stddev, dtype)
        return tf.clip_by_value(drawn, like.min_value, like.max_value)
