"""Square RGB uint8 images; Pillow, which smooths where it shrinks too, is the oracle."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from finetune.datasets.resize import to_square_uint8

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(28, 28), (40, 90), (200, 130)])
def test_it_agrees_with_pillow_within_one_step(shape):
    image = RNG.integers(0, 256, (*shape, 3), np.uint8)
    ours = to_square_uint8(tf.constant(image[None]), 56).numpy()[0]
    theirs = np.asarray(Image.fromarray(image).resize((56, 56), Image.Resampling.BILINEAR))
    assert ours.dtype == np.uint8
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_a_grey_image_is_repeated_in_three_channels():
    grey = RNG.integers(0, 256, (2, 5, 7, 1), np.uint8)
    seen = to_square_uint8(tf.constant(grey), 10).numpy()
    assert seen.shape == (2, 10, 10, 3)
    assert np.array_equal(seen[..., 0], seen[..., 1])
    assert np.array_equal(seen[..., 0], seen[..., 2])


def test_an_image_of_that_size_stays_as_it_is():
    image = RNG.integers(0, 256, (1, 16, 16, 3), np.uint8)
    assert np.array_equal(to_square_uint8(tf.constant(image), 16).numpy(), image)


def test_an_image_does_not_depend_on_its_batch_mates():
    images = RNG.integers(0, 256, (3, 20, 30, 3), np.uint8)
    together = to_square_uint8(tf.constant(images), 12).numpy()
    alone = np.concatenate([to_square_uint8(tf.constant(image[None]), 12).numpy() for image in images])
    assert np.array_equal(together, alone)


def test_it_takes_any_size_inside_a_traced_function():
    traced = tf.function(
        lambda images: to_square_uint8(images, 9),
        input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)],
    )
    assert traced(tf.zeros((2, 31, 7, 3), tf.uint8)).shape == (2, 9, 9, 3)
