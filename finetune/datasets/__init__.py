"""The datasets: one file a source, told apart by `source:`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from finetune.contributed import with_contributed
from finetune.datasets.arrays import Arrays
from finetune.datasets.base import Dataset, Split, Splits
from finetune.datasets.image_folder import ImageFolder
from finetune.datasets.image_table import ImageTable
from finetune.datasets.tfds import TensorFlowDatasets

OWN: tuple[type[Dataset], ...] = (TensorFlowDatasets, ImageFolder, ImageTable, Arrays)
DATASETS = with_contributed(OWN, "finetune.datasets", Dataset, "source")  # type: ignore[type-abstract]

if TYPE_CHECKING:
    AnyDataset = Dataset
else:
    AnyDataset = Annotated[Union[DATASETS], Field(discriminator="source")]  # noqa: UP007 - of however many there are

__all__ = [
    "DATASETS",
    "AnyDataset",
    "Arrays",
    "Dataset",
    "ImageFolder",
    "ImageTable",
    "Split",
    "Splits",
    "TensorFlowDatasets",
]
