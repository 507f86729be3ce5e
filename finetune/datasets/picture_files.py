"""Pictures that lie in files, whatever says which there are: read once to see that they can be read, and opened."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from finetune.component import Component
from finetune.datasets.base import Dataset, Split, Splits

if TYPE_CHECKING:
    import tensorflow as tf

    from finetune.datasets.folder_scan import Picture
    from finetune.datasets.originals import Originals


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


class PictureFiles(Dataset):
    """Base of the datasets whose images are files. Any kind of picture is read as RGB; transparency lies over white.
    The licence is not known."""

    path: str = Field(min_length=1)
    fractions: Fractions | None = Field(
        None, description="where nothing says which split an image is in; a tenth each where left out"
    )
    skip_corrupt: bool = Field(False, description="leave out files that cannot be read, and say so")

    @abstractmethod
    def _find(self, seed: int) -> tuple[tuple[str, ...], dict[str, list[Picture]], list[str]]:
        """Class names, the pictures of each split, and what to say about them. Raises DataError."""

    def read(self, image_size: int, seed: int) -> Splits:
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
        shares_training = "calibration" not in ordered
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
            shares_training=shares_training,
            multi_label=isinstance(ordered["train"][0].label, tuple),
        )

    def originals(self) -> Originals | None:
        """By the headers of the files."""
        from finetune.datasets.originals import originals_of

        return originals_of([picture for pictures in self._find(0)[1].values() for picture in pictures])[0]

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
