"""A stage that trains only the head, on cached features: the same training without the backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from finetune.datasets.base import Dataset
from finetune.datasets.reading_ahead import read_ahead
from finetune.feature_cache.cut import NotCacheable, cut_in_two
from finetune.feature_cache.image_source import Images, ImageSource
from finetune.feature_cache.key import key_of, network_digest
from finetune.feature_cache.rows import Rows, compiled, compute_rows, row_of
from finetune.feature_cache.store import Space, load, save
from finetune.progress import Progress

Keep = Literal["auto", "memory", "disk"]


@dataclass(frozen=True, eq=False)
class HeadStage:
    """What `fit` takes in place of the model and its images.

    head: shares its layers with the model, so that nothing is to be copied back. training, validation:
    batches of (features float32, labels int32), one for each batch of images and in their order. rows: those of
    the training images, each in so many views.
    """

    head: keras.Model
    training: tf.data.Dataset
    validation: tf.data.Dataset
    rows: Rows
    views: int

    def rebatched(self, source: ImageSource) -> tf.data.Dataset:
        """`training` in the batches and the order of another source of the same images."""
        return _looked_up(self.rows, source.training_order(self.views))


@dataclass(eq=False)
class BackboneRun:
    """The one run of the features over `total` images, and how far it is."""

    features: keras.Model
    progress: Progress
    total: int
    done: int = 0

    @cached_property
    def digest(self) -> str:
        return network_digest(self.features)

    @cached_property
    def forward(self) -> Callable[[Any], Any]:
        """Traced once for all splits."""
        return compiled(self.features)

    def rows(self, images: Images) -> Iterator[Rows]:
        for batch in compute_rows(self.features, self.forward, images.batches, images.count, images.passes):
            self.done += len(batch)
            self.progress.share(self.done / self.total)
            yield batch


def cached_head_stage(
    model: keras.Model,
    backbone: keras.Model,
    source: ImageSource,
    keep: Keep = "auto",
    views: int | None = None,
    space: Space | None = None,
    progress: Progress | None = None,
) -> HeadStage:
    """Compute the features of the training and validation images once, or find them on disk.

    To be called when `trainable` is set for the stage. Training the head on what comes back equals training
    the model on `training_batches`, up to rounding: the same order, validation and dropout.

    keep: "auto" is memory as far as `space` allows, else disk. views: under random augmentation, how many
    draws of every training image to keep; an epoch takes one of them, drawn by the seed.
    progress: hears what is kept and where, and how far the run of the backbone is.
    Raises NotCacheable, with nothing changed, where the stage has to run uncached.
    """
    if source.dataset.mix:
        raise NotCacheable("data.mix makes every image anew of two")
    space, progress, views = space or Space(), progress or Progress(), _views(source.dataset, views)
    cut = cut_in_two(model, backbone)
    training, validation = source.training(views), source.validation()
    needed = row_of(cut.features, training.label_shape).itemsize * (training.count * views + validation.count)
    in_memory = keep == "memory" or (keep == "auto" and needed <= space.memory)
    total = training.count * views + validation.count
    progress.phase(
        f"the backbone stands still: {total:,} rows of features, {needed / 1e6:,.1f} MB, computed once and kept "
        + ("in memory" if in_memory else f"in {space.folder}")
    )
    run = BackboneRun(cut.features, progress, total)
    try:
        kept = [
            _in_memory(run, images) if in_memory else _on_disk(run, images, space)
            for images in (training, validation)
        ]
    finally:
        progress.close()
    return HeadStage(
        cut.head,
        _looked_up(kept[0], source.training_order(views)),
        _looked_up(kept[1], source.validation_order()),
        kept[0],
        views,
    )


def _views(dataset: Dataset, asked: int | None) -> int:
    if not dataset.augment:
        return 1
    if asked is None:
        raise NotCacheable("data.augment draws every image anew; cached_views: N keeps N draws of each")
    return asked


def _in_memory(run: BackboneRun, images: Images) -> Rows:
    rows = np.empty(images.count * images.passes, row_of(run.features, images.label_shape))
    done = 0
    for batch in run.rows(images):
        rows[done : done + len(batch)] = batch
        done += len(batch)
    return rows


def _on_disk(run: BackboneRun, images: Images, space: Space) -> Rows:
    key = key_of(run.digest, images.described)
    try:
        rows = load(space.folder, key)
        if rows is None:
            row = row_of(run.features, images.label_shape)
            save(space, key, images.count * images.passes, row, run.rows(images))
            rows = load(space.folder, key)
    except OSError as error:
        raise NotCacheable(f"{space.folder}: {error.strerror or error}") from error
    if rows is None:
        raise NotCacheable(f"{space.folder}: what was written there cannot be read again")
    return rows


def _looked_up(rows: Rows, order: tf.data.Dataset) -> tf.data.Dataset:
    def look_up(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return rows["features"][places], rows["label"][places]

    def batch(places: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        features, labels = tf.numpy_function(look_up, [places], (tf.float32, tf.int32), stateful=False)
        shapes = ([places.shape[0], *rows[field].shape[1:]] for field in ("features", "label"))
        return tf.ensure_shape(features, next(shapes)), tf.ensure_shape(labels, next(shapes))

    return read_ahead(order.map(batch))
