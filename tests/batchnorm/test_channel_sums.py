"""Sums of channels against NumPy in float64, folded and not."""

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.batchnorm.channel_sums import WIDEST, fold_of, sum_of_products, sum_of_values

SIDES = st.integers(1, 9)


@settings(max_examples=25)
@given(images=st.integers(1, 4), height=SIDES, width=SIDES, channels=st.integers(1, 40), data=st.data())
def test_any_fold_gives_the_sums_of_the_channels(images, height, width, channels, data):
    positions = height * width
    fold = data.draw(st.sampled_from([k for k in range(1, positions + 1) if positions % k == 0]))
    a, b = np.random.default_rng(0).normal(1, 2, (2, images, height, width, channels)).astype(np.float32)
    of_values, of_products = sum_of_values(tf.constant(a), fold), sum_of_products(a, tf.constant(b), fold)
    assert of_values.shape == of_products.shape == (channels,)
    np.testing.assert_allclose(of_values, np.float64(a).sum((0, 1, 2)), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(of_products, (np.float64(a) * b).sum((0, 1, 2)), rtol=1e-5, atol=1e-4)


def test_a_fold_is_exact_where_one_number_after_another_is_not():
    y = np.random.default_rng(0).normal(1, 1, (16, 80, 80, 4)).astype(np.float32)
    expected = np.square(np.float64(y)).sum((0, 1, 2))

    def off(fold):
        return np.abs(sum_of_products(y, y, fold) / expected - 1).max()

    assert fold_of(y.shape) == 256
    assert off(fold_of(y.shape)) < 1e-6 < 1e-5 < off(1)


@given(height=SIDES, width=SIDES, channels=st.integers(1, 2 * WIDEST))
def test_the_fold_divides_an_image_and_is_as_wide_as_it_may_be(height, width, channels):
    positions, fold = height * width, fold_of((None, height, width, channels))
    assert positions % fold == 0
    assert fold == 1 or fold * channels <= WIDEST
    wider = [k for k in range(fold + 1, positions + 1) if positions % k == 0]
    assert all(k * channels > WIDEST for k in wider)


def test_images_of_open_size_are_not_folded():
    assert fold_of(tf.TensorShape([None, None, 8, 4])) == 1
