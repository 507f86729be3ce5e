"""A site behind a 1 x 1 convolution, normalised from the moments of what that reads: the definition in float64."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.batchnorm.conv_names import names_of_convolution
from finetune.batchnorm.gram_kernel import CANCELS, normalise_pointwise, worth_it

EPSILON, READ, MADE = 1e-3, 4, 12


def drawn(seed=0, images=6, side=5, read=READ, made=MADE, loc=0.3):
    """x as behind a ReLU, kernel, bias, gamma and beta."""
    random = np.random.default_rng(seed)
    x = np.maximum(random.normal(loc, 1, (images, side, side, read)), 0)
    kernel = random.normal(0, 0.5, (1, 1, read, made))
    vectors = random.normal(1, 0.3, (3, made))
    return [x, kernel, *vectors]


def definition(x, kernel, bias, gamma, beta):
    """Outputs, mean and biased variance."""
    y = x @ kernel[0, 0] + bias
    mean, variance = y.mean((0, 1, 2)), y.var((0, 1, 2))
    return (y - mean) / np.sqrt(variance + EPSILON) * gamma + beta, mean, variance


def computed(*values):
    """The same by the kernel, the number of positions, and whether summands cancel."""
    outputs, (count, mean, variance), summands = tf.function(normalise_pointwise, autograph=False)(
        *(None if v is None else tf.constant(v, tf.float32) for v in values), EPSILON
    )
    return [outputs, mean, variance], int(count), bool(np.any(summands > CANCELS * (variance + EPSILON)))


def furthest(found, expected):
    """The largest distance, relative to the largest value of each."""
    return max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(found, expected, strict=True))


@settings(max_examples=12)
@given(
    seed=st.integers(0, 999),
    images=st.integers(2, 9),
    side=st.integers(1, 6),
    read=st.integers(1, 9),
    made=st.integers(1, 20),
)
def test_outputs_and_moments_are_those_of_the_definition(seed, images, side, read, made):
    values = drawn(seed, images, side, read, made)
    (found, count, cancels), expected = computed(*values), definition(*values)
    assert count == images * side**2
    assert not cancels
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5 * max(1.0, np.abs(b).max()))


def test_it_is_as_exact_as_float32_is():
    values = drawn(images=16, side=12, read=16, made=64)
    assert furthest(computed(*values)[0], definition(*values)) < 5e-6


def cancelling():
    """Channels in pairs that are nearly alike, and outputs that are their differences."""
    x, kernel, *rest = drawn(images=8, side=8, loc=3.0)
    x[..., 1::2] = x[..., ::2] + 1e-3 * np.random.default_rng(5).normal(size=x[..., ::2].shape)
    kernel[0, 0, 1::2] = -kernel[0, 0, ::2]
    # as float32 has them
    return [np.float64(np.float32(v)) for v in (x, kernel, *rest)]


def test_where_summands_cancel_so_that_float32_does_not_resolve_the_variance_it_says_so():
    values = cancelling()
    found, _, cancels = computed(*values)
    assert np.abs(found[2] / definition(*values)[2] - 1).max() > 1e-2
    assert cancels


def test_no_bias_is_zeros():
    x, kernel, _, gamma, beta = drawn()
    expected = definition(x, kernel, 0.0, gamma, beta)
    assert furthest(computed(x, kernel, None, gamma, beta)[0], expected) < 2e-5


@pytest.mark.parametrize(
    ("side", "read", "made", "kernel", "strides", "takes"),
    [
        (8, 4, 12, 1, 1, True),
        (8, 4, 11, 1, 1, False),
        (8, 4, 12, 3, 1, False),
        (8, 4, 12, 1, 2, False),
        (2, 16, 64, 1, 1, True),
        (2, 20, 80, 1, 1, False),
        (None, 4, 12, 1, 1, False),
    ],
)
def test_it_takes_convolutions_of_1_x_1_that_make_three_times_the_channels(
    side, read, made, kernel, strides, takes
):
    @tf.function(input_signature=[tf.TensorSpec([None, side, side, read])], autograph=False)
    def run(x):
        y = tf.nn.conv2d(x, tf.ones([kernel, kernel, read, made]), strides, "SAME")
        behind = names_of_convolution(y, lambda tensor: tensor.name)
        assert worth_it(behind.pointwise, behind.x_shape, behind.kernel_shape) is takes
        return y

    assert run.get_concrete_function() is not None
