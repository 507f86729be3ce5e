"""A dataset of TensorFlow Datasets (https://www.tensorflow.org/datasets), by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from finetune.datasets.base import SPLIT_NAMES, Dataset, Split, Splits
from finetune.errors import DataError

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

    from finetune.datasets.originals import Originals


class TensorFlowDatasets(Dataset):
    """Any TFDS dataset that has an `image` and a `label`; `fashion_shift` ships with the package, `elpv` (real
    solar cells) comes with the extra `elpv`.

    Split expressions are those of TFDS, e.g. "train[:90%]". Prepared data is used as it is; otherwise the
    data is fetched where there is a network.
    """

    source: Literal["tfds"] = "tfds"
    name: str = Field(min_length=1, description="as in TFDS, with config and version where wanted")
    train: str = "train"
    validation: str | None = Field(None, description="the dataset's own validation split where left out")
    test: str = "test"
    calibration: str | None = Field(None, description="the training images where left out")
    data_dir: str | None = Field(None, description="where prepared data lies; TFDS' own place where left out")
    download: bool = True

    def read(self, image_size: int, seed: int) -> Splits:
        """Open the splits. TFDS has shuffled its files once and for all: `seed` changes nothing here."""
        from finetune.datasets.examples import digest_of
        from finetune.datasets.tfds_builder import check_features, prepared_builder

        self.check_augmentation(image_size)
        data_dir = None if self.data_dir is None else str(Path(self.data_dir).expanduser())
        builder = prepared_builder(self.name, data_dir, self.download)
        check_features(self.name, builder.info.features)
        found, decisions = self._read(builder, image_size)
        licence = builder.info.redistribution_info.license or None
        return Splits(
            train=found["train"],
            validation=found["validation"],
            test=found["test"],
            calibration=found["calibration"],
            class_names=tuple(builder.info.features["label"].names),
            image_size=image_size,
            digest=digest_of(
                image_size=image_size, shift=self.shift and self.shift.model_dump(), **decisions
            ),
            licence=licence,
            # what a person may not do with the data and what comes of it, they should hear before a training
            notes=(f"licence of {self.name}: {licence}",) if "commercial" in (licence or "").lower() else (),
            shares_training=self.calibration is None,
        )

    def originals(self) -> Originals | None:
        """By what the dataset says of its images; None where they have different sizes."""
        from finetune.datasets.originals import of_shape
        from finetune.datasets.tfds_builder import find_builder

        data_dir = None if self.data_dir is None else str(Path(self.data_dir).expanduser())
        info = find_builder(self.name, data_dir).info
        shape = info.features["image"].shape
        count = sum(split.num_examples for split in info.splits.values())
        return None if None in shape else of_shape(count, *shape)

    def open_split(self, expression: str, image_size: int) -> tuple[Split, tuple[str, ...]]:
        """One split by itself, and the names of its classes. Raises DataError as `load` does."""
        from finetune.datasets.tfds_builder import check_features, prepared_builder
        from finetune.datasets.tfds_splits import image_ranges

        builder = prepared_builder(self.name, self.data_dir, self.download)
        check_features(self.name, builder.info.features)
        try:
            ranges = image_ranges(expression, builder.info.splits)
        except ValueError as error:
            raise DataError(f"{self.name}:{expression}: {str(error).splitlines()[-1]}") from error
        count = sum(part.count for part in ranges)
        names = tuple(builder.info.features["label"].names)
        return self._open(builder, expression, expression, count, image_size), names

    def _read(
        self, builder: tfds.core.DatasetBuilder, image_size: int
    ) -> tuple[dict[str, Split], dict[str, Any]]:
        """The splits, and what decides which images they hold."""
        from finetune.datasets.tfds_splits import resolve_splits

        written = {name: getattr(self, name) for name in SPLIT_NAMES}
        stored = builder.info.splits
        expressions, ranges = resolve_splits(self.name, written, stored)
        splits = {
            name: self._open(builder, name, expressions[name], sum(part.count for part in parts), image_size)
            for name, parts in ranges.items()
        }
        decisions = {
            "dataset": builder.info.full_name,
            "stored": {name: (info.num_examples, info.num_bytes) for name, info in stored.items()},
            "ranges": {name: [(p.stored, p.start, p.stop) for p in parts] for name, parts in ranges.items()},
        }
        return splits, decisions

    def _open(
        self, builder: tfds.core.DatasetBuilder, name: str, expression: str, count: int, image_size: int
    ) -> Split:
        from finetune.datasets.examples import make_examples
        from finetune.datasets.tfds_stored import stored_examples

        raw = stored_examples(builder, expression)
        description = f"{self.name} {expression}" + (f", {self.shift}" if self.shift else "")
        return Split(name, make_examples(raw, self.shift, image_size, count), count, description)
