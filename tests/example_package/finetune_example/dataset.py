"""Stripes that lie and stripes that stand."""

from typing import Literal

from pydantic import Field

from finetune.datasets.base import SPLIT_NAMES, Dataset, Split, Splits

NAMES = ("lying", "standing")


class Stripes(Dataset):
    """Noisy stripes in two classes, made up on the spot."""

    source: Literal["stripes"] = "stripes"
    images: int = Field(64, ge=4, description="in each split")

    def read(self, image_size: int, seed: int) -> Splits:
        splits = {name: self._split(name, place, image_size) for place, name in enumerate(SPLIT_NAMES)}
        return Splits(
            **splits, class_names=NAMES, image_size=image_size, digest=f"stripes-{self.images}-{image_size}"
        )

    def _split(self, name: str, place: int, image_size: int) -> Split:
        import numpy as np
        import tensorflow as tf

        random, labels = np.random.default_rng(place), np.arange(self.images, dtype=np.int32) % 2
        lying = np.tile(np.arange(image_size) % 4 < 2, (image_size, 1)).T
        bright = np.stack([lying.T if label else lying for label in labels])[..., None] * 120.0
        noisy = bright + random.uniform(0, 100, (self.images, image_size, image_size, 3))
        examples = tf.data.Dataset.from_tensor_slices((noisy.astype(np.uint8), labels))
        return Split(name, examples, self.images, f"stripes {name}")
