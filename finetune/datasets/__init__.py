"""The datasets: one file a source, told apart by `source:`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from finetune.datasets.base import Dataset, Split, Splits
from finetune.datasets.image_folder import ImageFolder
from finetune.datasets.image_table import ImageTable
from finetune.datasets.tfds import TensorFlowDatasets

DATASETS: tuple[type[Dataset], ...] = (TensorFlowDatasets, ImageFolder, ImageTable)

AnyDataset = Annotated[TensorFlowDatasets | ImageFolder | ImageTable, Field(discriminator="source")]

__all__ = [
    "DATASETS",
    "AnyDataset",
    "Dataset",
    "ImageFolder",
    "ImageTable",
    "Split",
    "Splits",
    "TensorFlowDatasets",
]
