"""A site behind a convolution, normalised from sums about where the mean is expected: the definition in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from finetune.batchnorm import sum_kernel
from finetune.batchnorm.producer import convolution_behind
from finetune.batchnorm.sum_kernel import normalise_about

EPSILON, CHANNELS = 1e-3, 3


def drawn(distance):
    """y with its means so many standard deviations from where they are expected, gamma, beta, about, and upstream."""
    random = np.random.default_rng(0)
    about = random.normal(0, 5, CHANNELS)
    y = random.normal(0, 2, (7, 6, 5, CHANNELS)) + about + 2 * distance
    return [y, *random.normal(1, 0.3, (2, CHANNELS)), about, random.normal(0, 1, y.shape)]


def definition(y, gamma, beta, about, upstream):
    """Outputs, mean, biased variance, and the gradients of sum(outputs * upstream) by y, gamma and beta."""
    axes = (0, 1, 2)
    mean, variance = y.mean(axes), y.var(axes)
    deviation = np.sqrt(variance + EPSILON)
    normalised = (y - mean) / deviation
    of_gamma, of_beta = (upstream * normalised).sum(axes), upstream.sum(axes)
    of_y = (
        gamma / deviation * (upstream - upstream.mean(axes) - normalised * (upstream * normalised).mean(axes))
    )
    return normalised * gamma + beta, mean, variance, of_y, of_gamma, of_beta


def computed(*values):
    """The same by the kernel, behind a convolution that hands on what it reads."""
    identity = np.eye(CHANNELS, dtype=np.float32)[None, None]

    @tf.function(autograph=False)
    def run(y, gamma, beta, about, upstream):
        watched = [y, gamma, beta]
        with tf.GradientTape() as tape:
            tape.watch(watched)
            behind = convolution_behind(tf.nn.conv2d(y, identity, 1, "VALID"))
            outputs, mean, variance = normalise_about(behind, about, gamma, beta, EPSILON)
            total = tf.reduce_sum(outputs * upstream)
        return [outputs, mean, variance, *tape.gradient(total, watched)]

    return run(*(tf.constant(v, tf.float32) for v in values))


@pytest.mark.parametrize("distance", [0.0, 0.9, 3.0, 100.0])
def test_outputs_moments_and_gradients_are_those_of_the_definition_however_far_the_mean_is(distance):
    values = drawn(distance)
    # float32 has seven digits of y itself
    lost = 1e-6 * max(1.0, distance)
    for found, expected in zip(computed(*values), definition(*values), strict=True):
        np.testing.assert_allclose(found, expected, rtol=20 * lost, atol=20 * lost)


def test_far_means_need_the_second_sum(monkeypatch):
    monkeypatch.setattr(sum_kernel, "FAR", np.inf)
    values = drawn(100.0)
    variance = computed(*values)[2]
    assert np.abs(variance / definition(*values)[2] - 1).max() > 1e-3


def test_moments_and_sums_of_gradients_of_many_positions_keep_their_digits(monkeypatch):
    """Added one after another, float32 numbers lose them (finetune.batchnorm.channel_sums)."""
    random = np.random.default_rng(0)
    y = np.abs(random.normal(1, 1, (16, 64, 64, CHANNELS)))
    values = [y, *np.ones((2, CHANNELS)), np.zeros(CHANNELS), np.abs(random.normal(1, 1, y.shape))]
    expected = definition(*values)

    def error():
        pairs = list(zip(computed(*values), expected, strict=True))
        return max(np.abs(a / b - 1).max() for a, b in (*pairs[1:3], pairs[5]))

    folded = error()
    monkeypatch.setattr(sum_kernel, "fold_of", lambda shape: 1)
    assert folded < 5e-6 < error()


def test_no_gradient_flows_to_where_the_mean_was_expected_nor_from_the_moments():
    y, *_, about, _ = (tf.constant(v, tf.float32) for v in drawn(0.5))

    @tf.function(autograph=False)
    def run():
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([y, about])
            behind = convolution_behind(tf.nn.conv2d(y, tf.eye(CHANNELS)[None, None], 1, "VALID"))
            ones = tf.ones([CHANNELS])
            outputs, mean, variance = normalise_about(behind, about, ones, ones, EPSILON)
            moments, total = tf.reduce_sum(mean + variance), tf.reduce_sum(outputs)
        assert tape.gradient(moments, y) is None
        assert tape.gradient(total, about) is None
        return tape.gradient(total, y)

    assert run().shape == y.shape


CONVOLUTIONS = {
    "3 x 3": lambda: layers.Conv2D(8, 3, padding="same"),
    "strided": lambda: layers.Conv2D(8, 3, strides=2),
    "1 x 1": lambda: layers.Conv2D(3, 1, use_bias=False),
    "depthwise": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
@pytest.mark.parametrize("shape", [(5, 9, 9, 4), (16, 3, 3, 40)], ids=["wide", "deep"])
def test_gradients_by_what_the_convolution_reads_and_by_its_kernel_are_those_of_float64(kind, shape):
    """Of many positions, so that the kernel is scaled, and of few, so that the gradient of the outputs is."""
    found, expected = (gradients_of(CONVOLUTIONS[kind], shape, dtype) for dtype in ("float32", "float64"))
    assert len(found) == len(expected) > 4
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5 * max(1.0, np.abs(b).max()))


def gradients_of(make, shape, dtype):
    """Outputs, mean and variance; gradients by x, gamma, beta, and each variable of the convolution. float64: by the
    definition."""
    random = np.random.default_rng(0)
    layer = make()
    layer.dtype_policy = keras.DTypePolicy(dtype)
    layer.build(shape)
    for variable in layer.weights:
        variable.assign(random.normal(size=variable.shape))
    channels = layer.compute_output_shape(shape)[-1]
    x, gamma, beta, about = (
        tf.constant(random.normal(0.5, 1, s), dtype) for s in (shape, (channels,), (channels,), (channels,))
    )
    upstream = tf.constant(random.normal(size=layer.compute_output_shape(shape)), dtype)

    @tf.function(autograph=False)
    def run(x, gamma, beta):
        with tf.GradientTape() as tape:
            tape.watch([x, gamma, beta])
            y = layer(x)
            if dtype == "float32":
                outputs, mean, variance = normalise_about(convolution_behind(y), about, gamma, beta, EPSILON)
            else:
                mean, variance = tf.nn.moments(y, [0, 1, 2])
                outputs = (y - mean) / tf.sqrt(variance + EPSILON) * gamma + beta
            total = tf.reduce_sum(outputs * upstream)
        watched = [x, gamma, beta, *(variable.value for variable in layer.trainable_variables)]
        return [outputs, mean, variance, *tape.gradient(total, watched)]

    return run(x, gamma, beta)
