"""TFDS builder of elpv over the images of the package elpv-dataset (Deitsch et al. 2019, Solar Energy 185, 455-468)."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from finetune.errors import DataError

CLASS_NAMES = ("functional", "defective")

DEFECTIVE = 0.5
"""Experts gave every cell a probability of a defect: 0, 1/3, 2/3 or 1. Above this it counts as one."""

TENTHS = {
    "train": (0, 1, 2, 3, 4, 5),
    "validation": (6,),
    "calibration": (7,),
    "test": (8, 9),
}
"""Which of every ten cells of a kind, in the order of the package, a split has. Which module a cell was cut from is not
recorded, so that cells of one module are in several splits, as in the paper."""

KINDS = ("mono", "poly")


@dataclass(frozen=True)
class Cell:
    """One line of labels.csv. number: its position there."""

    number: int
    file: Path
    probability: float
    kind: str


class Builder(tfds.core.GeneratorBasedBuilder):
    """Reads what the extra `elpv` installed: preparing it needs no network. TFDS names it after the folder."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Four splits of each of the two kinds of cells."}  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(300, 300, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(names=CLASS_NAMES),
                    "probability": tfds.features.Scalar(np.float32, doc="of a defect, as experts see it"),
                    "id": tfds.features.Scalar(np.int64, doc="position in labels.csv"),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://github.com/zae-bayern/elpv-dataset",
            license="CC BY-NC-SA 4.0, not for commercial use",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {name: self._generate_examples(cells) for name, cells in split_cells(read_cells()).items()}

    def _generate_examples(self, cells: list[Cell]) -> Iterator[tuple[int, dict[str, Any]]]:
        for cell in cells:
            yield (
                cell.number,
                {
                    "image": str(cell.file),
                    "label": int(cell.probability > DEFECTIVE),
                    "probability": cell.probability,
                    "id": cell.number,
                },
            )


def split_cells(cells: list[Cell]) -> dict[str, list[Cell]]:
    """mono_train, mono_validation, ..., poly_test."""
    found = {}
    for kind in KINDS:
        of_kind = [cell for cell in cells if cell.kind == kind]
        for split, tenths in TENTHS.items():
            found[f"{kind}_{split}"] = [cell for place, cell in enumerate(of_kind) if place % 10 in tenths]
    return found


def read_cells() -> list[Cell]:
    """In the order of the package. Raises DataError where it is not installed."""
    package = importlib.util.find_spec("elpv_dataset")
    if package is None or not package.submodule_search_locations:
        raise DataError(
            "data.name: elpv is a package of its own (CC BY-NC-SA 4.0, not for commercial use), which is not "
            "installed: pip install 'finetune[elpv]'"
        )
    folder = Path(package.submodule_search_locations[0]) / "data"
    lines = (folder / "labels.csv").read_text("utf-8").splitlines()
    return [
        Cell(number, folder / file, float(probability), kind)
        for number, (file, probability, kind) in enumerate(line.split() for line in lines)
    ]
