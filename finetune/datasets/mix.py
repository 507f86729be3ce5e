"""Batches in which every image is two: mixup (Zhang et al. 2018, arXiv:1710.09412) and CutMix (Yun et al. 2019,
arXiv:1905.04899).

keras-cv has both, but what its layers draw starts over with every epoch inside tf.data. Here every batch draws from a
seed of its own. A site that follows the batch sees mixed images only, whose moments are not those of plain ones:
`finish: recalibrate` measures them on plain images in the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from finetune.component import Component
from finetune.datasets.reading_ahead import read_ahead

if TYPE_CHECKING:
    import tensorflow as tf


class Mix(Component):
    """Every training image with another one of its batch, and their labels in the same shares."""

    kind: Literal["mixup", "cutmix"] = Field(
        description="blend the pixels, or put a rectangle of the other one in"
    )
    alpha: float = Field(
        0.2,
        gt=0,
        description="of the Beta distribution of the shares: small ones leave most images nearly whole",
    )


def mixed(batches: tf.data.Dataset, mix: Mix, classes: int, seed: int) -> tf.data.Dataset:
    """Batches (images 0..255 (batch, size, size, 3), labels int32 (batch,)) -> (float32 images, float32 shares of the
    classes (batch, classes)), drawn by the seed, the epoch and the batch's position."""
    import tensorflow as tf

    def together(batch: tuple[tf.Tensor, tf.Tensor], drawn: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = tf.cast(batch[0], tf.float32), tf.one_hot(batch[1], classes)
        share, place = _share(mix.alpha, drawn), drawn + 1
        if mix.kind == "mixup":
            images = share * images + (1.0 - share) * images[::-1]
        else:
            kept = _outside_a_box(tf.shape(images)[1], share, place)
            images = kept * images + (1.0 - kept) * images[::-1]
            # a box that reaches over the edge is smaller than was drawn
            share = tf.reduce_mean(kept)
        return images, share * labels + (1.0 - share) * labels[::-1]

    seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).batch(2)
    return read_ahead(tf.data.Dataset.zip(batches, seeds).map(together))


def _share(alpha: float, seed: tf.Tensor) -> tf.Tensor:
    """Beta(alpha, alpha), from two Gamma variables."""
    import tensorflow as tf

    one, other = tf.unstack(tf.random.stateless_gamma((2,), seed, alpha))
    # both underflow to 0 where alpha is tiny: the image stays whole
    return tf.where(one + other > 0, one / (one + other), 1.0)


def _outside_a_box(size: tf.Tensor, share: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """1.0 outside and 0.0 inside a square of (1 - share) of the area around a random pixel: (1, size, size, 1)."""
    import tensorflow as tf

    half = tf.sqrt(1.0 - share) * tf.cast(size, tf.float32) / 2
    centre = tf.random.stateless_uniform((2, 1), seed, 0.0, tf.cast(size, tf.float32))
    pixels = tf.range(tf.cast(size, tf.float32)) + 0.5
    rows, columns = tf.unstack(tf.abs(pixels[None] - centre) < half)
    return 1.0 - tf.cast(rows[:, None] & columns[None], tf.float32)[None, ..., None]
