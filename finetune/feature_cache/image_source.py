"""What the batches of a stage are made from: its images in their fixed order, and the order of its epochs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from finetune.datasets.base import Dataset, Split, Splits
from finetune.datasets.batches import evaluation_batches, training_batches
from finetune.datasets.mix import mixed


@dataclass(frozen=True, eq=False)
class Images:
    """A split as features are computed of it.

    batches: (images, labels) in the split's order, drawn anew in every pass where augmented.
    described: plain values that decide what the batches hold.
    """

    batches: tf.data.Dataset
    count: int
    passes: int
    described: Mapping[str, Any]

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Of one image: (), or (classes,) of multi-label images."""
        return tuple(self.batches.element_spec[1].shape[1:])


@dataclass(frozen=True, eq=False)
class ImageSource:
    """Training and validation images of a stage.

    seed: of the order of training images, as `training_batches` takes it. batch_size: images a batch of
    validation, as `evaluation_batches` takes it; features are computed in such batches.
    """

    splits: Splits
    dataset: Dataset
    seed: int
    batch_size: int

    def rebatched(self, batch_size: int, epoch: int) -> ImageSource:
        """The same images in batches of another size, from this epoch (from 0) of a stage on.

        The order is one of its own: with the same seed every size would begin with the order of the first epoch.
        """
        dataset = self.dataset.model_copy(update={"batch_size": batch_size})
        return replace(self, dataset=dataset, seed=self.seed + epoch)

    def training_batches(self) -> tf.data.Dataset:
        """As `fit` takes them: augmented and mixed where the dataset says so."""
        batches = training_batches(self.splits.train, self.dataset, self.seed)
        if self.dataset.mix is None:
            return batches
        return mixed(batches, self.dataset.mix, len(self.splits.class_names), self.seed)

    def training(self, views: int = 1) -> Images:
        """Every image `views` times, each time augmented anew."""
        images = self._images(self.splits.train)
        if not self.dataset.augment:
            return images
        from finetune.datasets.augmentation_layers import augmented

        batches = augmented(images.batches, self.dataset.augment, self.splits.image_size, self.seed)
        drawn = {
            "augment": [augmentation.model_dump(mode="json") for augmentation in self.dataset.augment],
            "seed": self.seed,
            "batch_size": self.batch_size,
            "views": views,
        }
        return Images(batches, images.count, views, {**images.described, **drawn})

    def validation(self) -> Images:
        return self._images(self.splits.validation)

    def _images(self, split: Split) -> Images:
        described = {
            "digest": self.splits.digest,
            "image_size": self.splits.image_size,
            "split": split.name,
            "description": split.description,
            "count": split.count,
        }
        return Images(evaluation_batches(split, self.batch_size), split.count, 1, described)

    def training_order(self, views: int = 1) -> tf.data.Dataset:
        """Batches int64 (batch,) of places in `training(views)`, epoch for epoch the images of `training_batches`.

        With several views each image of each epoch is one of its own, drawn by the seed.
        """
        order = training_batches(self._stand_in(), self.dataset.model_copy(update={"augment": ()}), self.seed)
        places = order.map(lambda _, place: place)
        if views == 1:
            return places
        seeds = tf.data.Dataset.random(seed=self.seed, rerandomize_each_iteration=True).batch(2)
        count = self.splits.train.count

        def one_of_its_views(place: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            return place + count * tf.random.stateless_uniform(tf.shape(place), seed, 0, views, tf.int64)

        return tf.data.Dataset.zip(places, seeds).map(one_of_its_views)

    def validation_order(self) -> tf.data.Dataset:
        """Batches int64 (batch,) of places in `validation()`, as `evaluation_batches` makes them."""
        return tf.data.Dataset.range(self.splits.validation.count).batch(self.batch_size)

    def _stand_in(self) -> Split:
        """The training split with the place of each image as its label, and one row of no picture as its image.

        `training_batches` reads the image size off that row, and sizes its shuffle buffer by it.
        """
        count = self.splits.train.count
        # zipped and not mapped: mapping every place took three quarters of an epoch
        rows = tf.data.Dataset.from_tensors(tf.zeros([self.splits.image_size], tf.uint8)).repeat(count)
        return replace(self.splits.train, examples=tf.data.Dataset.zip(rows, tf.data.Dataset.range(count)))
