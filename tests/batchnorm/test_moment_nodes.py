"""Operations that take the moments of a tensor, run as a function of it, against NumPy in float64."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.batchnorm.graph_function import GraphFunction
from finetune.batchnorm.moment_nodes import summed

SIDES = st.integers(1, 7)


def measured(y):
    """Count, mean and variance by sums, of images of a shape that is known and a batch that is not."""
    watch = summed("site", "y:0", (None, *y.shape[1:]))
    run = GraphFunction(watch.nodes, {"y:0": tf.float32.as_datatype_enum}, watch.tensors, {})
    return watch.moments(*(each.numpy() for each in run([tf.constant(y)])))


def drawn(shape, distance=0.0):
    """Float32 values with means so many standard deviations from zero."""
    return np.random.default_rng(0).normal(2 * distance, 2, shape).astype(np.float32)


@settings(max_examples=20)
@given(images=st.integers(1, 9), height=SIDES, width=SIDES, channels=st.integers(1, 20))
def test_sums_give_the_moments_of_images_of_any_shape(images, height, width, channels):
    y = drawn((images, height, width, channels), 0.5)
    found, exactly = measured(y), np.float64(y)
    assert found.count == images * height * width
    np.testing.assert_allclose(found.mean, exactly.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(found.variance, exactly.var((0, 1, 2)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("distance", [0.0, 5.0, 50.0])
def test_they_are_as_exact_wherever_the_mean_is(distance):
    y = drawn((16, 40, 40, 8), distance)
    found, exactly = measured(y), np.float64(y)
    assert np.abs(found.mean - exactly.mean((0, 1, 2))).max() < 1e-5
    assert np.abs(found.variance / exactly.var((0, 1, 2)) - 1).max() < 5e-6


def test_one_image_of_one_position_has_no_variance():
    found = measured(drawn((1, 1, 1, 3), 5.0))
    assert found.count == 1
    assert not found.variance.any()
