"""Training images beside what the training makes of them, as pictures inside a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from finetune.datasets.batches import training_batches
from finetune.feature_cache import ImageSource

SIDE = 128
"""Pixels of a picture in the page, at most."""


@dataclass(frozen=True)
class Pair:
    """before, after: PNG as data URIs. label: the class, the shares of the classes in a mixed image, or all
    classes that a multi-label image shows."""

    before: str
    after: str
    label: str


def pairs(source: ImageSource, names: Sequence[str], count: int) -> list[Pair]:
    """The first `count` images in the order of the first epoch, and what augmentation and mixing make of them."""
    plain = source.dataset.model_copy(update={"augment": (), "mix": None})
    before = training_batches(source.splits.train, plain, source.seed)
    after = source.training_batches()
    found: list[Pair] = []
    for (images, _), (changed, labels) in zip(
        before.as_numpy_iterator(), after.as_numpy_iterator(), strict=True
    ):
        for image, other, label in zip(images, changed, labels, strict=True):
            found.append(Pair(_uri(image), _uri(other), _words(label, names)))
            if len(found) == count:
                return found
    return found


def _uri(pixels: np.ndarray) -> str:
    picture = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
    if picture.width > SIDE:
        picture = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _words(label: np.ndarray, names: Sequence[str]) -> str:
    if np.ndim(label) == 0:
        return names[int(label)]
    if np.issubdtype(label.dtype, np.integer):
        return ", ".join(names[i] for i, shown in enumerate(label) if shown) or "none of the classes"
    shares = sorted(((share, names[i]) for i, share in enumerate(label) if share > 0.005), reverse=True)
    return " + ".join(f"{100 * share:.0f} % {name}" for share, name in shares)
