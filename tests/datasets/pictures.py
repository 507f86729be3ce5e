"""Small data sets whose images can be told apart: every image is of one grey value, its number."""

from __future__ import annotations

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

SIDE = 8
TRAIN, TEST = 30, 12


class TinyShapes(tfds.core.GeneratorBasedBuilder):
    """30 and 12 grey images of two classes, numbered 0..41; no validation split."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(SIDE, SIDE, 1)),
                    "label": tfds.features.ClassLabel(names=["even", "odd"]),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(range(TRAIN)),
            "test": self._generate_examples(range(TRAIN, TRAIN + TEST)),
        }

    def _generate_examples(self, numbers):
        for number in numbers:
            yield number, {"image": plain(number), "label": number % 2}


def plain(number: int) -> np.ndarray:
    """The image with that number, uint8 (8, 8, 1)."""
    return np.full((SIDE, SIDE, 1), number, np.uint8)


def write_folder(root, files: dict[str, int]):
    """PNG files, by path below the root, each with its number for a grey value."""
    for path, number in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(plain(number)[..., 0]).save(file)
    return root


def two_classes(root, cats=10, dogs=20):
    """One folder a class: cats 0, 1, ... and dogs 100, 101, ..."""
    files = {f"cat/{n}.png": n for n in range(cats)}
    return write_folder(root, files | {f"dog/{n}.png": 100 + n for n in range(dogs)})


def pairs(split):
    """(number, label) of every image of a split, in order."""
    return [(int(image[0, 0, 0]), int(label)) for image, label in split.examples.as_numpy_iterator()]


def numbers(split):
    return [number for number, _ in pairs(split)]
