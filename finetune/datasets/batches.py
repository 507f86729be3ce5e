"""How examples reach the network: shuffled and augmented for training, in fixed order for everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune.datasets.base import Dataset, Split
from finetune.datasets.reading_ahead import read_ahead

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf
    from numpy.typing import NDArray


def training_batches(split: Split, dataset: Dataset, seed: int) -> tf.data.Dataset:
    """Batches of (images 0..255 (batch, size, size, 3), labels int32 (batch,)) in a new order every epoch.

    Images are uint8, or float32 where augmented. All batches have `dataset.batch_size` images, what is
    left of an epoch is dropped; a split smaller than a batch is one batch. The same seed gives the same
    epochs, in any process. Raises DataError for options that an augmentation does not take.
    """
    from finetune.datasets.examples import KEPT_IN_MEMORY

    image_size = split.examples.element_spec[0].shape[0]
    buffer = min(split.count, KEPT_IN_MEMORY // (image_size * image_size * 3))
    shuffled = split.examples.shuffle(buffer, seed=seed, reshuffle_each_iteration=True)
    batches = shuffled.batch(dataset.batch_size, drop_remainder=split.count >= dataset.batch_size)
    if dataset.augment:
        from finetune.datasets.augmentation_layers import augmented

        batches = augmented(batches, dataset.augment, image_size, seed)
    return read_ahead(batches)


def evaluation_batches(split: Split, batch_size: int) -> tf.data.Dataset:
    """Batches of (images uint8 (batch, size, size, 3), labels int32 (batch,)) in the split's order, all of them."""
    return read_ahead(split.examples.batch(batch_size))


def images_only(split: Split, batch_size: int, limit: int | None = None) -> tf.data.Dataset:
    """Batches of images uint8 (batch, size, size, 3) without labels: the first `limit` images of the split.

    The result can be read any number of times; a limited one keeps its images in memory after the first.
    """
    images = split.examples.map(lambda image, label: image)
    if limit is not None and limit < split.count:
        images = images.take(limit).cache()
    return read_ahead(images.batch(batch_size))


def class_weights(split: Split, classes: int) -> dict[int, float]:
    """Weights under which all classes of the split count alike: images / (classes present x images of the class).

    Their mean over the images is 1. A class without images gets 0. Reads the split once.
    """
    import numpy as np

    counts = np.bincount(labels_of(split), minlength=classes)
    present = np.count_nonzero(counts)
    return {c: float(counts.sum() / (present * n)) if n else 0.0 for c, n in enumerate(counts.tolist())}


def class_counts(labels: NDArray[np.integer], classes: int) -> NDArray[np.integer]:
    """How many images show each class, (classes,); labels as `labels_of` gives them."""
    import numpy as np

    return labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=classes)


def labels_of(split: Split) -> NDArray[np.int32]:
    """(n,), of multi-label images (n, classes), in the split's order. Reads the split once."""
    import numpy as np

    labels = read_ahead(split.examples.map(lambda image, label: label).batch(1024))
    return np.concatenate(list(labels.as_numpy_iterator()))
