"""TFDS builder of fashion_shift over the IDX files beside it (Fashion-MNIST, Xiao et al. 2017, arXiv:1708.07747)."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

FILES = Path(__file__).parent

CLASS_NAMES = (
    "t-shirt/top", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip

# image id = position in the t10k files
SPLIT_IDS = {
    "train": range(4000),
    "validation": range(4000, 5500),
    "calibration": range(5500, 7000),
    "test": range(7000, 10000),
}


class Builder(tfds.core.GeneratorBasedBuilder):
    """Reads what ships with the package: preparing it needs no network. TFDS names it after the folder."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "The four splits by image id."}  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(28, 28, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(names=CLASS_NAMES),
                    "id": tfds.features.Scalar(dtype=np.int64, doc="position in the t10k files"),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://github.com/zalandoresearch/fashion-mnist",
            license="MIT, Copyright (c) 2017 Zalando SE",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        images, labels = read_test_images()
        return {name: self._generate_examples(images, labels, ids) for name, ids in SPLIT_IDS.items()}

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray, ids: range
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for image_id in ids:
            yield image_id, {"image": images[image_id], "label": int(labels[image_id]), "id": image_id}


def read_test_images() -> tuple[np.ndarray, np.ndarray]:
    """All images uint8 (10000, 28, 28, 1) and labels uint8 (10000,), in the order of the files."""
    # an IDX header is 16 bytes for images and 8 for labels
    images = gzip.decompress((FILES / "t10k-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((FILES / "t10k-labels-idx1-ubyte.gz").read_bytes())
    return (
        np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28, 1),
        np.frombuffer(labels, np.uint8, offset=8),
    )
