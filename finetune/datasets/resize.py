"""Images of any size as the network reads them: square, RGB, uint8. The exported model resizes with this too."""

from __future__ import annotations

import tensorflow as tf


def to_square_uint8(images: tf.Tensor, size: int) -> tf.Tensor:
    """Images uint8 (batch, height, width, 1 or 3) -> uint8 (batch, size, size, 3).

    Bilinear with half-pixel centres, smoothed first where it shrinks, rounded to even. The aspect ratio is
    not kept: no part of the image is cut off. A grey image is repeated in all three channels.
    """
    resized = tf.image.resize(images, (size, size), method="bilinear", antialias=True)
    resized = tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)
    return tf.repeat(resized, 3, axis=-1) if images.shape[-1] == 1 else resized
