"""Pictures in folders: one folder a class, divided by folder or by fraction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from finetune.component import Component
from finetune.datasets.base import Dataset, Split, Splits

if TYPE_CHECKING:
    import tensorflow as tf

    from finetune.datasets.folder_scan import Picture


class Fractions(Component):
    """Shares of each class; what is left is trained on. No calibration share: the training images serve."""

    validation: float = Field(0.1, gt=0, lt=1)
    test: float = Field(0.1, gt=0, lt=1)
    calibration: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def leave_some_to_train_on(self) -> Fractions:
        if self.validation + self.test + self.calibration >= 1:
            raise ValueError("the fractions leave nothing to train on; their sum must be below 1")
        return self


class ImageFolder(Dataset):
    """Either path/train, path/validation, path/test (and path/calibration), each with one folder a class, or
    one folder a class under `path`, which `fractions` divide.

    Any kind of picture is read as RGB; transparency lies over white. The licence is not known.
    """

    source: Literal["image_folder"] = "image_folder"
    path: str = Field(min_length=1)
    fractions: Fractions | None = Field(
        None, description="for one folder a class; a tenth each where left out"
    )
    skip_corrupt: bool = Field(False, description="leave out files that cannot be read, and say so")

    def load(self, image_size: int, seed: int) -> Splits:
        """Read every file once to see that it can be read, and open the splits, in an order set by `seed`."""
        from finetune.datasets.examples import digest_of
        from finetune.datasets.folder_check import content_digests, copies, without_corrupt
        from finetune.datasets.folder_split import in_random_order

        self.check_augmentation(image_size)
        class_names, found, notes = self._find(seed)
        digests = content_digests([picture for pictures in found.values() for picture in pictures])
        kept = without_corrupt(found, digests, class_names, self.skip_corrupt)
        # in random order, so that the first images of a split are a fair sample of it
        ordered = {name: in_random_order(pictures, seed) for name, pictures in kept.items()}
        ordered.setdefault("calibration", ordered["train"])
        splits = {name: self._open(name, pictures, image_size) for name, pictures in ordered.items()}
        content = {name: [(p.id, digests[p.id]) for p in pictures] for name, pictures in ordered.items()}
        shift = self.shift and self.shift.model_dump()
        return Splits(
            train=splits["train"],
            validation=splits["validation"],
            test=splits["test"],
            calibration=splits["calibration"],
            class_names=class_names,
            image_size=image_size,
            digest=digest_of(classes=class_names, content=content, image_size=image_size, shift=shift),
            notes=(*notes, *skipped(digests), *copies(kept, digests)),
        )

    def _find(self, seed: int) -> tuple[tuple[str, ...], dict[str, list[Picture]], list[str]]:
        """Class names, the pictures of each split, and what to say about them."""
        from finetune.datasets.folder_scan import holds_splits, scan_classes, scan_splits
        from finetune.datasets.folder_split import divide
        from finetune.errors import DataError

        root = Path(self.path).expanduser()
        if holds_splits(root):
            if self.fractions is not None:
                raise DataError(f"data.fractions: {root} is divided by folders already; leave fractions out")
            scanned = scan_splits(root)
            others = [file for classes in scanned.values() for file in classes.others]
            found = {name: list(classes.pictures) for name, classes in scanned.items()}
            return scanned["train"].names, found, ignored(others)
        classes = scan_classes(root, root)
        if classes.problems:
            raise DataError(classes.problems)
        shares = (self.fractions or Fractions()).model_dump()
        return classes.names, divide(classes.pictures, classes.names, shares, seed), ignored(classes.others)

    def _open(self, name: str, pictures: Sequence[Picture], image_size: int) -> Split:
        from finetune.datasets.examples import make_examples

        examples = make_examples(raw_pictures(pictures), self.shift, image_size, len(pictures))
        description = f"{self.path} {name}" + (f", {self.shift}" if self.shift else "")
        return Split(name, examples, len(pictures), description)


def raw_pictures(pictures: Sequence[Picture]) -> tf.data.Dataset:
    """(image uint8 (height, width, 3), id, label) of each picture, in order."""
    import numpy as np
    import tensorflow as tf

    from finetune.datasets.picture import decode_picture

    def decode(path: tf.Tensor) -> tf.Tensor:
        image = tf.numpy_function(
            lambda path: decode_picture(Path(path.decode()).read_bytes()), [path], tf.uint8
        )
        return tf.ensure_shape(image, (None, None, 3))

    listing = tf.data.Dataset.from_tensor_slices(
        (
            [str(picture.path) for picture in pictures],
            [picture.id for picture in pictures],
            np.array([picture.label for picture in pictures], np.int32),
        )
    )
    return listing.map(
        lambda path, picture_id, label: (decode(path), picture_id, label),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def skipped(digests: dict[str, str | None]) -> list[str]:
    from finetune.datasets.folder_check import corrupt_ids, listed

    corrupt = corrupt_ids(digests)
    return [f"left out, because they cannot be read as images: {listed(corrupt)}"] if corrupt else []


def ignored(others: Sequence[str]) -> list[str]:
    from finetune.datasets.folder_check import listed

    return [f"left out, because their names are not those of images: {listed(others)}"] if others else []
