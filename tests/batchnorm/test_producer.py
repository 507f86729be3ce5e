"""The convolution behind a site: found where there is one, scaled, applied to other values."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from finetune.batchnorm.producer import convolution_behind

X = np.random.default_rng(0).normal(1, 2, (3, 9, 9, 4))
OFFSET = np.random.default_rng(1).normal(0, 2, 8)
SCALE = np.random.default_rng(2).normal(0, 2, 8)

CONVOLUTIONS = {
    "plain": lambda: layers.Conv2D(8, 3, use_bias=False),
    "bias": lambda: layers.Conv2D(8, 3),
    "same": lambda: layers.Conv2D(8, 3, padding="same"),
    "strided": lambda: layers.Conv2D(8, 3, strides=2, padding="same"),
    "1 x 1": lambda: layers.Conv2D(8, 1),
    "depthwise": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
    "depthwise without bias": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False),
    "depthwise strided": lambda: layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2),
}


def built(make):
    keras.utils.set_random_seed(3)
    layer = make()
    layer.build(X.shape)
    for variable in layer.weights:
        variable.assign(np.random.default_rng(4).normal(size=variable.shape))
    return layer


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_convolution_of_other_values_and_its_gradients_are_those_of_float64(kind):
    """What it reads and its kernel are given anew; the bias stays away."""
    layer = built(CONVOLUTIONS[kind])
    other = np.random.default_rng(6).normal(size=X.shape)
    kernel = np.random.default_rng(7).normal(size=layer.kernel.shape)
    upstream = np.random.default_rng(5).normal(size=layer(X).shape)

    @tf.function(autograph=False)
    def ours(x, kernel, upstream):
        behind = convolution_behind(layer(tf.constant(X, tf.float32)))
        by_x = behind.gradient_by_x(x, kernel, upstream)
        return behind.applied(x, kernel), by_x, behind.gradient_by_kernel(x, upstream)

    found = ours(*(tf.constant(v, tf.float32) for v in (other, kernel, upstream)))
    double = in_double(layer, CONVOLUTIONS[kind])
    double.kernel.assign(kernel)
    x = tf.constant(other)
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = double(x)
        total = tf.reduce_sum(outputs * upstream)
    plain = outputs - (double.bias if double.use_bias else 0.0)
    for a, b in zip(found, [plain, *tape.gradient(total, [x, double.kernel.value])], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize(
    ("side", "read", "made", "kernel", "outweighs"),
    [
        (3, 4, 4, 3, True),
        (3, 32, 8, 3, False),
        (3, 287, 8, 1, True),
        (3, 288, 8, 1, False),
        (None, 288, 8, 1, True),
    ],
)
def test_outputs_for_32_images_outweigh_the_kernel_where_they_are_more_numbers(
    side, read, made, kernel, outweighs
):
    @tf.function(input_signature=[tf.TensorSpec([None, side, side, read])], autograph=False)
    def run(x):
        outputs = tf.nn.conv2d(x, tf.ones([kernel, kernel, read, made]), 1, "SAME")
        assert convolution_behind(outputs).outweighs_kernel is outweighs
        return x

    assert run.get_concrete_function() is not None


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_scaled_convolution_is_the_scaled_outputs_and_has_their_gradients(kind):
    """By x, the scale and the offset, against the multiplication and addition of float64."""
    layer, in_float64 = built(CONVOLUTIONS[kind]), in_double(built(CONVOLUTIONS[kind]), CONVOLUTIONS[kind])
    upstream = np.random.default_rng(5).normal(size=layer(X).shape)

    @tf.function(autograph=False)
    def run(x, scale, offset, make, apply):
        with tf.GradientTape() as tape:
            tape.watch([x, scale, offset])
            outputs = apply(make(x), scale, offset)
            total = tf.reduce_sum(outputs * tf.cast(upstream, x.dtype))
        return [outputs, *tape.gradient(total, [x, scale, offset])]

    def ours(y, scale, offset):
        return convolution_behind(y).scaled(scale, offset)

    found = run(*(tf.constant(v, tf.float32) for v in (X, SCALE, OFFSET)), layer, ours)
    values = (tf.constant(v, tf.float64) for v in (X, SCALE, OFFSET))
    expected = run(*values, in_float64, lambda y, scale, offset: y * scale + offset)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3 * np.abs(b).max())


def in_double(layer, make):
    keras.config.set_dtype_policy("float64")
    try:
        other = make()
        other.build(X.shape)
    finally:
        keras.config.set_dtype_policy("float32")
    for variable, value in zip(other.weights, layer.weights, strict=True):
        variable.assign(np.asarray(value, np.float64))
    return other


def behind(make, dtype=tf.float32, format_="last"):
    """What is found behind the outputs of a function of x, in a graph."""
    shape = X.shape if format_ == "last" else (3, 4, 9, 9)
    found = []

    @tf.function(input_signature=[tf.TensorSpec(shape, dtype)], autograph=False)
    def run(x):
        found.append(convolution_behind(make(x)))
        return x

    run.get_concrete_function()
    return found[0]


def conv(x, channels=8, side=3):
    return tf.nn.conv2d(x, tf.ones([side, side, 4, channels], x.dtype), 1, "SAME")


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x,
        lambda x: tf.nn.relu(conv(x)),
        lambda x: conv(x) + conv(x),
        lambda x: conv(x) + tf.ones([3, 9, 9, 8]),
        lambda x: conv(x) + tf.ones([9, 1]),
        lambda x: tf.matmul(x, tf.ones([4, 8])),
    ],
    ids=["an input", "an activation", "two of them", "more than a bias", "a column", "a product"],
)
def test_nothing_else_is_taken_for_a_convolution(make):
    assert behind(make) is None


def test_a_convolution_is_found_in_graphs_of_float32_with_channels_last_only():
    assert behind(conv) is not None
    assert behind(conv, tf.float64) is None
    assert behind(conv, tf.bfloat16) is None
    first = lambda x: tf.nn.conv2d(x, tf.ones([3, 3, 4, 8]), 1, "SAME", data_format="NCHW")  # noqa: E731
    assert behind(first, format_="first") is None
    assert convolution_behind(conv(tf.constant(X, tf.float32))) is None
