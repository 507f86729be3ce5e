"""The images of a recipe or of TFDS as a calibration set."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.datasets.base import Split
from finetune.datasets.reading_ahead import read_ahead
from finetune.datasets.tfds import TensorFlowDatasets
from finetune.errors import InputError
from finetune.recalibration.images import FEWER


class SplitImages:
    """The first `samples` images of a split, at one size; see finetune.recalibration.images.FolderImages."""

    notes: tuple[str, ...] = ()

    def __init__(
        self,
        split: Split,
        samples: int,
        class_names: tuple[str, ...],
        *,
        labelled: bool,
        keep: Callable[[int], bool] | None = None,
    ) -> None:
        taken = read_ahead(split.examples.take(samples).batch(256))
        parts = [(np.asarray(images), np.asarray(labels)) for images, labels in taken.as_numpy_iterator()]
        if not parts:
            raise InputError(f"{split.description}: has no image")
        images = np.concatenate([images for images, _ in parts])
        kept = np.array([keep is None or keep(place) for place in range(len(images))])
        if not kept.any():
            raise InputError(
                f"{split.description}: no batch is left for this share of {len(kept)} images; {FEWER}"
            )
        self.images = images[kept]
        known = np.concatenate([labels for _, labels in parts]).astype(np.int64)[kept]
        self.source, self.count = split.description, len(self.images)
        self.labels = known if labelled else None
        self.class_names = class_names if labelled else None
        hashes = sorted(hashlib.sha256(image.tobytes()).digest() for image in self.images)
        self.digest = hashlib.sha256(b"".join(hashes)).hexdigest()

    def batches(self, image_size: int, batch_size: int) -> Iterator[NDArray[np.uint8]]:
        """RGB uint8 (batch, image_size, image_size, 3); the last one may be smaller."""
        if self.images.shape[1] != image_size:
            raise InputError(f"{self.source}: opened at {self.images.shape[1]} px, asked for {image_size} px")
        for start in range(0, self.count, batch_size):
            yield self.images[start : start + batch_size]


def from_recipe(
    recipe: Path,
    image_size: int,
    samples: int,
    *,
    labelled: bool,
    keep: Callable[[int], bool] | None = None,
) -> SplitImages:
    """The calibration split of a recipe, through its camera; with labels the test split, whose labels it may use."""
    from finetune.recipe_file import load_recipe

    loaded = load_recipe(recipe)
    splits = loaded.data.load(image_size, loaded.seed)
    if labelled and splits.multi_label:
        raise InputError(
            f"{recipe}: its data are multi-label, and the gate takes labels of one class an image; leave out --labelled"
        )
    split = splits.test if labelled else splits.calibration
    return SplitImages(split, samples, splits.class_names, labelled=labelled, keep=keep)


def from_tfds(
    name: str, image_size: int, samples: int, *, labelled: bool, keep: Callable[[int], bool] | None = None
) -> SplitImages:
    """`NAME:SPLIT`, as in cats_vs_dogs:train[:10%]."""
    dataset, _, expression = name.partition(":")
    if not dataset or not expression:
        raise InputError(f"--tfds {name}: expected NAME:SPLIT, as in cats_vs_dogs:train[:10%]")
    split, class_names = TensorFlowDatasets(name=dataset).open_split(expression, image_size)
    return SplitImages(split, samples, class_names, labelled=labelled, keep=keep)
