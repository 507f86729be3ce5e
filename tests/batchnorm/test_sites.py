"""Finding, reading and freezing BN sites in every kind of Keras model."""

import keras
import numpy as np
import pytest
from keras import layers

from finetune.batchnorm.moments import RunningStatistics
from finetune.batchnorm.sites import find_sites, replaced_calls, restored_settings
from tests.nets import NETS, SIZE, compile_and_fit, functional_net, images, nested_net

EXPECTED = {"functional": 3, "nested": 3, "custom_layer": 2, "subclassed": 2}


@pytest.mark.parametrize("kind", NETS)
def test_every_called_site_is_found_once(kind):
    sites = find_sites(NETS[kind](), images(1))
    called = [site for site in sites if site.calls]
    assert len(called) == EXPECTED[kind]
    assert len({site.path for site in sites}) == len(sites)
    assert [site.index for site in sites] == list(range(len(sites)))


def test_sites_come_in_call_order_with_paths_from_the_model_down():
    sites = find_sites(nested_net(), images(1))
    assert [site.path for site in sites] == ["net/bn_1", "net/bn_2", "net/bn_3"]


def test_sites_that_are_never_called_are_told_apart():
    sites = find_sites(NETS["custom_layer"](), images(1))
    idle = [site for site in sites if not site.calls]
    assert sorted(site.path for site in idle) == ["block_1/idle_bn", "block_2/idle_bn"]
    assert not any(site.built for site in idle)


def test_positions_are_the_values_behind_one_channel_of_one_image():
    sites = find_sites(functional_net(), images(1))
    assert [site.positions for site in sites] == [(SIZE - 2) ** 2, (SIZE - 2) ** 2, 1]


def test_a_shared_layer_is_one_site_called_twice():
    shared = layers.BatchNormalization(name="shared")
    inputs = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(inputs, shared(layers.Conv2D(3, 1)(shared(inputs))))
    (site,) = find_sites(model, images(1))
    assert site.calls == 2
    assert site.positions == 2 * SIZE * SIZE


def test_channels_first_counts_positions_behind_its_own_axis():
    inputs = keras.Input((4, 5))
    model = keras.Model(inputs, layers.BatchNormalization(axis=1)(inputs))
    (site,) = find_sites(model, np.zeros((1, 4, 5), np.float32))
    assert (site.channels, site.positions) == (4, 5)


@pytest.mark.parametrize("kind", NETS)
def test_frozen_sites_do_not_move_in_fit(kind):
    model = NETS[kind]()
    sites = [site for site in find_sites(model, images(1)) if site.built]
    for site in sites:
        site.freeze()
    before = [(site.statistics, site.affine) for site in sites]
    compile_and_fit(model)
    for site, (statistics, affine) in zip(sites, before, strict=True):
        assert site.statistics.identical(statistics)
        assert all(a.tobytes() == b.tobytes() for a, b in zip(affine, site.affine, strict=True))


@pytest.mark.parametrize("kind", NETS)
def test_following_sites_move_with_the_momentum_given(kind):
    model = NETS[kind]()
    first = next(site for site in find_sites(model, images(1)) if site.calls)
    # nothing before the first site may move, or its input would change within the batch
    model.trainable = False
    first.follow(0.75)
    before = first.statistics
    seen = []

    def watch(layer, original):
        def call(inputs, training=None, mask=None):
            seen.append(np.array(inputs, np.float64))
            return original(inputs, training=training, mask=mask)

        return call

    with replaced_calls([first.layer], watch):
        model(images(16), training=False)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.train_on_batch(images(16), np.zeros(16, int))
    batch = seen[0].reshape(-1, first.channels)
    np.testing.assert_allclose(first.statistics.mean, 0.75 * before.mean + 0.25 * batch.mean(0), atol=1e-5)
    np.testing.assert_allclose(
        first.statistics.variance, 0.75 * before.variance + 0.25 * batch.var(0), rtol=1e-4
    )


def test_readings_are_copies():
    (site, *_) = find_sites(functional_net(), images(1))
    reading = site.statistics
    site.store(RunningStatistics(reading.mean + 1, reading.variance * 2))
    assert not site.statistics.identical(reading)


@pytest.mark.parametrize("fails", [False, True])
def test_borrowed_calls_and_momenta_are_given_back(fails):
    model = functional_net()
    sites = find_sites(model, images(1))
    before = [site.momentum for site in sites]
    expected = np.array(model(images(4)))
    try:
        with (
            restored_settings(sites),
            replaced_calls(
                [s.layer for s in sites], lambda layer, call: lambda x, training=None, mask=None: 0 * x
            ),
        ):
            for site in sites:
                site.follow(0.5)
            assert not np.allclose(model(images(4)), expected)
            if fails:
                raise RuntimeError("the data ended early")
    except RuntimeError:
        pass
    assert [site.momentum for site in sites] == before
    assert not any("call" in vars(site.layer) for site in sites)
    np.testing.assert_array_equal(model(images(4)), expected)
