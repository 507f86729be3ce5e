"""A 1 x 1 convolution and its site as one function: outputs, moments and gradients are those of float64."""

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.batchnorm import gram_gradients
from finetune.batchnorm.gram_gradients import normalise_behind_pointwise
from finetune.batchnorm.producer import convolution_behind

EPSILON = 1e-3


def drawn(seed=0, images=6, side=5, read=4, made=12, loc=0.3):
    """x as behind a ReLU, kernel, bias, gamma, beta, upstream."""
    random = np.random.default_rng(seed)
    x = np.maximum(random.normal(loc, 1, (images, side, side, read)), 0)
    kernel = random.normal(0, 0.5, (1, 1, read, made))
    return [x, kernel, *random.normal(1, 0.3, (3, made)), random.normal(size=(images, side, side, made))]


def computed(*values):
    """Outputs, mean, variance, and the gradients of sum(outputs * upstream) by all but upstream."""

    @tf.function(autograph=False)
    def run(*values):
        x, kernel, bias, gamma, beta, upstream = values
        with tf.GradientTape() as tape:
            tape.watch(values[:5])
            y = tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "VALID"), bias)
            outputs, mean, variance = normalise_behind_pointwise(convolution_behind(y), gamma, beta, EPSILON)
            total = tf.reduce_sum(outputs * upstream)
        return [outputs, mean, variance, *tape.gradient(total, values[:5])]

    return [np.asarray(v) for v in run(*(tf.constant(v, tf.float32) for v in values))]


def definition(*values):
    """The same in float64, of single operations."""
    *watched, upstream = map(tf.constant, values)
    with tf.GradientTape() as tape:
        tape.watch(watched)
        x, kernel, bias, gamma, beta = watched
        y = tf.matmul(x, kernel[0, 0]) + bias
        mean, variance = tf.nn.moments(y, [0, 1, 2])
        outputs = (y - mean) / tf.sqrt(variance + EPSILON) * gamma + beta
        total = tf.reduce_sum(outputs * upstream)
    return [np.asarray(v) for v in (outputs, mean, variance, *tape.gradient(total, watched))]


def furthest(found, expected):
    """The largest distance, beside the largest value there is or 1."""
    assert len(found) == len(expected)
    return max(np.abs(a - b).max() / max(1.0, np.abs(b).max()) for a, b in zip(found, expected, strict=True))


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 9),
    side=st.integers(2, 6),
    read=st.integers(1, 5),
    wider=st.integers(3, 6),
    loc=st.floats(-0.5, 3.0),
)
def test_outputs_moments_and_gradients_are_those_of_float64(seed, images, side, read, wider, loc):
    values = drawn(seed, images, side, read, wider * read, loc)
    assert furthest(computed(*values), definition(*values)) < 5e-5


def cancelling():
    """Channels that are the difference of two that are nearly the same: a rest of a thousandth of its summands."""
    x, kernel, *rest = drawn(images=20)
    x[..., 1] = x[..., 0] + 0.03 * x[..., 1]
    x[..., 2:] = 0
    kernel[:, :, 1] = -kernel[:, :, 0]
    kernel *= 100
    return [x, kernel, *rest]


def test_a_variance_that_is_a_small_rest_is_measured_on_the_outputs(monkeypatch):
    values = cancelling()
    expected = definition(*values)[2]
    error = np.abs(computed(*values)[2] / expected - 1).max()
    monkeypatch.setattr(gram_gradients, "CANCELS", np.inf)
    without = np.abs(computed(*values)[2] / expected - 1).max()
    assert error < 2e-5 < without


def test_no_gradient_flows_from_the_moments():
    x, kernel, *_ = (tf.constant(v, tf.float32) for v in drawn())

    @tf.function(autograph=False)
    def run():
        with tf.GradientTape() as tape:
            tape.watch(x)
            ones = tf.ones([kernel.shape[-1]])
            behind = convolution_behind(tf.nn.conv2d(x, kernel, 1, "VALID"))
            outputs, mean, variance = normalise_behind_pointwise(behind, ones, ones, EPSILON)
            moments = tf.reduce_sum(mean + variance)
        assert tape.gradient(moments, x) is None
        return outputs

    assert run().shape == (6, 5, 5, 12)


def test_what_is_as_wide_as_the_outputs_is_made_once_and_never_read_for_moments():
    """Sums of products would be a kernel gradient of a depthwise convolution; it stands where summands cancel only."""

    @tf.function(autograph=False)
    def run(x, kernel):
        ones = tf.ones([12])
        return normalise_behind_pointwise(
            convolution_behind(tf.nn.conv2d(x, kernel, 1, "VALID")), ones, ones, EPSILON
        )

    graph = run.get_concrete_function(tf.TensorSpec([None, 5, 5, 4]), tf.TensorSpec([1, 1, 4, 12])).graph
    kinds = [operation.type for operation in graph.get_operations()]
    assert "DepthwiseConv2dNativeBackpropFilter" not in kinds
    # the one that was traced first has no reader and is dropped
    assert kinds.count("Conv2D") == 2
