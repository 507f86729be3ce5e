"""Sites written into a graph as ones that normalise with their batch, against live Keras in float64, training mode."""

import keras
import numpy as np
import pytest
from keras import layers

from finetune.batchnorm import batch_network
from finetune.batchnorm.live_model import LiveModel
from finetune.batchnorm.moments import PopulationMoments
from finetune.batchnorm.population import one_pass
from finetune.batchnorm.sites import find_sites

SIZE = 8


def mobile(policy="float32"):
    """Every way of a site: behind a convolution with a bias, a wider one of 1 x 1, a depthwise one, a narrower one, an
    addition, another site, a dense layer, and along another axis."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    try:
        inputs = keras.Input((SIZE, SIZE, 3))
        x = layers.Conv2D(6, 3, strides=2)(inputs)
        x = first = layers.Activation("swish")(layers.BatchNormalization(name="strided")(x))
        x = layers.Conv2D(24, 1, use_bias=False)(x)
        x = layers.ReLU(6.0)(layers.BatchNormalization(name="wider")(x))
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(name="depthwise", scale=False)(x))
        x = layers.BatchNormalization(name="narrower", center=False)(layers.Conv2D(6, 1)(x))
        x = layers.BatchNormalization(name="joined")(layers.Add()([first, x]))
        x = layers.BatchNormalization(name="another")(x)
        x = layers.BatchNormalization(name="rows", axis=1)(x)
        x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
        outputs = layers.BatchNormalization(name="vector")(layers.Dense(5)(x))
        return drawn(keras.Model(inputs, outputs))
    finally:
        keras.config.set_dtype_policy("float32")


def drawn(model):
    """gamma, beta and statistics, so that no law holds by the symmetry of zeros and ones."""
    random = np.random.default_rng(5)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            for variable, low in zip(
                (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance),
                (0.5, -1, -1, 0.5),
                strict=True,
            ):
                if variable is not None:
                    variable.assign(random.uniform(low, 1.5, variable.shape))
    return model


def photographs(count, loc=0.5, seed=0):
    return np.random.default_rng(seed).normal(loc, 1.0, (count, SIZE, SIZE, 3)).astype(np.float32)


def in_float64(model, batches):
    """Moments by the layers themselves: in training mode, at momentum 0, what they store is those of the batch."""
    twin = mobile("float64")
    twin.set_weights(model.get_weights())
    sites = find_sites(twin, np.zeros((1, SIZE, SIZE, 3)))
    parts = []
    for batch in batches:
        for site in sites:
            site.layer.momentum = 0.0
        twin(np.float64(batch), training=True)
        parts.append(
            [
                PopulationMoments.of_batch(len(batch), site.statistics.mean, site.statistics.variance)
                for site in sites
            ]
        )
    return [PopulationMoments.pool(site) for site in zip(*parts, strict=True)]


def apart(found, expected):
    """The largest distance, in standard deviations and relative variance, of sites in float64."""
    return max(
        max(
            np.abs((a.mean - b.mean) / np.sqrt(b.variance)).max(),
            np.abs(a.variance / b.variance - 1).max(),
        )
        for a, b in zip(found, expected, strict=True)
    )


def ways(model, images):
    """Per call, in which of the four ways it is written."""
    graph = LiveModel(model, find_sites(model, images[:1])).graph(images)
    written = graph.in_batch_mode.graph(frozenset(), frozenset()).written
    return [("summed" if w.off else "pointwise" if w.summands else "whole") for w in written]


def test_every_site_is_measured_as_keras_normalises_in_float64():
    model = mobile()
    batches = [photographs(24), photographs(24, seed=1), photographs(7, loc=1.0, seed=2)]
    measured, images = one_pass(model, find_sites(model, batches[0][:1]), batches)
    assert images == 55
    assert ways(model, batches[0]) == ["summed", "pointwise", "summed", "summed", *["whole"] * 4]
    assert apart(measured, in_float64(model, batches)) < 2e-5


def test_a_batch_that_is_far_from_the_first_one_is_measured_as_exactly(monkeypatch):
    model, near, far = mobile(), photographs(24), photographs(24, loc=400.0)
    network = LiveModel(model, find_sites(model, near[:1])[:1]).graph(near).in_batch_mode
    ones_and_zeros = [(np.ones(6), np.zeros(6))]
    expected = in_float64(model, [far])[:1]
    assert apart(network.run(ones_and_zeros, (), [near])([far]), expected) < 1e-4
    monkeypatch.setattr(batch_network, "TRIES", 1)
    assert apart(network.run(ones_and_zeros, (), [near])([far]), expected) > 1e-3


def test_where_summands_cancel_a_site_goes_another_way():
    model = mobile()
    wider = next(layer for layer in model.layers if isinstance(layer, layers.Conv2D) and layer.filters == 24)
    kernel = np.array(wider.kernel)
    # the channels that it reads become nearly alike, and it takes differences of them
    first = model.layers[1]
    first.kernel.assign(np.repeat(np.array(first.kernel)[..., :1], 6, -1) + 1e-3 * np.array(first.kernel))
    kernel[..., 1::2, :] = -kernel[..., ::2, :]
    wider.kernel.assign(kernel)
    strided = model.get_layer("strided")
    strided.gamma.assign(np.ones(6))
    strided.beta.assign(np.zeros(6))
    batches = [photographs(24)]
    sites = find_sites(model, batches[0][:1])
    assert ways(model, batches[0])[1] == "pointwise"
    network = LiveModel(model, sites).graph(batches[0]).in_batch_mode
    run = network.run([(np.ones(c.channels), np.zeros(c.channels)) for c in network.calls], (), batches)
    assert run.without == {1}
    assert apart(one_pass(model, sites, batches)[0][:2], in_float64(model, batches)[:2]) < 1e-3


@pytest.mark.parametrize(
    ("policy", "tolerance"), [("mixed_float16", 2e-2), ("mixed_bfloat16", 0.2), ("float64", 1e-9)]
)
def test_other_precisions_are_measured_in_theirs(policy, tolerance):
    model = mobile(policy)
    batches = [photographs(24), photographs(24, seed=1)]
    measured, _ = one_pass(model, find_sites(model, batches[0][:1]), batches)
    assert apart(measured, in_float64(model, batches)) < tolerance


def test_gamma_and_beta_are_those_in_force_whenever_a_graph_is_used_again():
    model = mobile()
    batches = [photographs(24)]
    live = LiveModel(model, find_sites(model, batches[0][:1]))
    live.one_pass(batches, {})
    model.get_layer("strided").gamma.assign([0.5, 2.0, -1.0, 1.5, 0.1, 3.0])
    model.get_layer("depthwise").beta.assign(np.linspace(-1, 1, 24))
    assert apart(live.one_pass(batches, {})[0], in_float64(model, batches)) < 2e-5


def test_a_site_that_is_far_from_zero_is_measured_in_float64():
    model = mobile()
    model.layers[1].bias.assign(np.full(6, 3000.0))
    batches = [photographs(24), photographs(24, seed=1)]
    sites = find_sites(model, batches[0][:1])
    live = LiveModel(model, sites)
    measured, _ = live.one_pass(batches, {})
    graphs = live.graph(batches[0]).in_batch_mode._graphs
    assert {precise for _, precise in graphs} == {frozenset(), frozenset({0})}
    # what float32 makes of the inputs themselves is left: a seven digits' share of 3,000
    assert np.abs(measured[0].variance / in_float64(model, batches)[0].variance - 1).max() < 2e-3
    with pytest.raises(ValueError, match="can be iterated again"):
        one_pass(model, sites, iter(batches))
