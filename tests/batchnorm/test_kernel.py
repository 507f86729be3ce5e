"""The fused kernel against the definition of BN and of its gradients in NumPy float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from finetune.batchnorm.kernel import fusible, normalise_with_batch

EPSILON, CHANNELS = 1e-3, 5
SHAPES = {2: (24, 5), 3: (4, 6, 5), 4: (4, 3, 2, 5), 5: (2, 3, 2, 2, 5)}


def drawn(shape, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(2, 3, shape), random.normal(0, 1, shape)


def affine():
    random = np.random.default_rng(9)
    return random.uniform(0.5, 1.5, CHANNELS), random.normal(0, 1, CHANNELS)


def definition(x, gamma, beta, upstream):
    """Outputs, mean, biased variance, and the gradients of sum(outputs * upstream) by inputs, gamma and beta."""
    flat, weights = x.reshape(-1, CHANNELS), upstream.reshape(-1, CHANNELS)
    mean, variance = flat.mean(0), flat.var(0)
    deviation = np.sqrt(variance + EPSILON)
    normalised = (flat - mean) / deviation
    outputs = normalised * gamma + beta
    of_gamma, of_beta = (weights * normalised).sum(0), weights.sum(0)
    of_inputs = gamma / deviation * (weights - weights.mean(0) - normalised * (weights * normalised).mean(0))
    return outputs.reshape(x.shape), mean, variance, of_inputs.reshape(x.shape), of_gamma, of_beta


def computed(x, gamma, beta, upstream):
    values = [tf.constant(v, tf.float32) for v in (x, gamma, beta)]
    with tf.GradientTape() as tape:
        tape.watch(values)
        outputs, mean, variance = normalise_with_batch(*values, EPSILON)
        total = tf.reduce_sum(outputs * tf.constant(upstream, tf.float32))
    return [outputs, mean, variance, *tape.gradient(total, values)]


@pytest.mark.parametrize("rank", SHAPES)
def test_outputs_moments_and_gradients_are_those_of_the_definition(rank):
    x, upstream = drawn(SHAPES[rank])
    expected = definition(x, *affine(), upstream)
    for found, value in zip(computed(x, *affine(), upstream), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=2e-5)


def test_the_variance_is_the_biased_one():
    """Of two values it is half the unbiased one."""
    _, mean, variance = normalise_with_batch(tf.constant([[1.0], [4.0]]), None, None, EPSILON)
    assert (float(mean[0]), float(variance[0])) == (2.5, 2.25)


def test_one_position_has_variance_zero_and_becomes_beta():
    gamma, beta = (tf.constant(v, tf.float32) for v in affine())
    outputs, mean, variance = normalise_with_batch(
        tf.constant(drawn((1, 5))[0], tf.float32), gamma, beta, EPSILON
    )
    np.testing.assert_array_equal(variance, np.zeros(5))
    np.testing.assert_allclose(mean, drawn((1, 5))[0][0], rtol=1e-6)
    np.testing.assert_allclose(outputs[0], beta, atol=1e-6)


def test_no_gamma_is_ones_and_no_beta_zeros():
    x, upstream = drawn(SHAPES[4])
    outputs, *_ = normalise_with_batch(tf.constant(x, tf.float32), None, None, EPSILON)
    np.testing.assert_allclose(outputs, definition(x, 1.0, 0.0, upstream)[0], atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2e-3), ("bfloat16", 2e-2)])
def test_half_precision_is_normalised_in_float32(dtype, tolerance):
    inputs = tf.cast(drawn(SHAPES[4])[0], dtype)
    x = np.asarray(tf.cast(inputs, tf.float64))
    outputs, mean, variance = normalise_with_batch(inputs, *affine(), EPSILON)
    expected = definition(x, *affine(), x)
    assert (outputs.dtype, mean.dtype, variance.dtype) == (dtype, "float32", "float32")
    np.testing.assert_allclose(tf.cast(outputs, tf.float64), expected[0], atol=2 * tolerance)
    np.testing.assert_allclose(mean, expected[1], atol=1e-5)
    np.testing.assert_allclose(variance, expected[2], rtol=1e-5)


def test_no_gradient_flows_from_the_moments():
    """Running statistics follow; nothing is trained through them."""
    x = tf.constant(drawn(SHAPES[4])[0], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        _, mean, variance = normalise_with_batch(x, None, None, EPSILON)
        total = tf.reduce_sum(mean) + tf.reduce_sum(variance)
    assert tape.gradient(total, x) is None


@pytest.mark.parametrize(
    ("shape", "dtype", "axis", "takes"),
    [
        ((None, 5), "float32", -1, True),
        ((None, 8, 8, 5), "float32", 3, True),
        ((None, 2, 8, 8, 5), "bfloat16", 4, True),
        ((None, 5, 8, 8), "float32", 1, False),
        ((None, 8, 8, 5), "float64", -1, False),
        ((None, 2, 2, 2, 2, 5), "float32", -1, False),
    ],
)
def test_it_takes_two_to_five_ranks_with_channels_last_in_at_most_32_bits(shape, dtype, axis, takes):
    assert fusible(keras.KerasTensor(shape, dtype), axis) is takes


def test_the_size_of_the_batch_may_be_unknown():
    @tf.function(input_signature=[tf.TensorSpec([None, None, 5])])
    def run(x):
        outputs, mean, variance = normalise_with_batch(x, None, None, EPSILON)
        assert outputs.shape.as_list() == [None, None, 5]
        return outputs, mean, variance

    for shape in ((4, 6, 5), (1, 3, 5)):
        x, _ = drawn(shape)
        expected = definition(x, 1.0, 0.0, x)
        for found, value in zip(run(tf.constant(x, tf.float32)), expected[:3], strict=True):
            np.testing.assert_allclose(found, value, rtol=1e-5, atol=2e-5)
