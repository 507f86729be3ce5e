"""Measured statistics against the float64 NumPy network, three sites in depth."""

import keras
import numpy as np
import pytest
from keras import layers

from finetune.batchnorm.measure import measure
from finetune.batchnorm.moments import PopulationMoments
from finetune.batchnorm.population import input_moments, one_pass
from finetune.batchnorm.sites import find_sites
from tests.nets import NETS, NumpyNet, functional_net, images

SITES = ("bn_1", "bn_2", "bn_3")


def measured_in_one_pass(model, sites, open_batches, **options):
    return measure(model, sites, open_batches, method="one_pass", **options)


def oracle(model, batches, *, normalise_with_batch):
    net = NumpyNet(model)
    seen = [net.site_inputs(b, normalise_with_batch=normalise_with_batch) for b in batches]
    values = {name: np.concatenate([s[name] for s in seen]) for name in SITES}
    return [(v.mean(0), v.var(0)) for v in values.values()]


def split(x, *sizes):
    return np.split(x, np.cumsum(sizes))


def worst(moments, expected):
    """Largest distance in standard deviations and relative variance."""
    apart = [
        max(np.max(np.abs(m.mean - mean) / np.sqrt(variance)), np.max(np.abs(m.variance / variance - 1)))
        for m, (mean, variance) in zip(moments, expected, strict=True)
    ]
    return max(apart)


@pytest.mark.parametrize("sizes", [(16, 16), (20, 20, 1), (5,)])
def test_one_pass_equals_the_float64_network_site_by_site(model, sites, sizes):
    batches = split(images(48, loc=0.4, scale=2.0), *sizes)
    measured, count = one_pass(model, sites, batches)
    assert count == 48
    assert worst(measured, oracle(model, batches, normalise_with_batch=True)) < 2e-5


def test_input_moments_equal_the_float64_network_site_by_site(model, sites):
    batches = split(images(48, loc=0.4, scale=2.0), 10, 30)
    measured, count = input_moments(model, sites, batches)
    assert count == 48
    assert worst(measured, oracle(model, batches, normalise_with_batch=False)) < 2e-5


def test_batching_and_order_do_not_change_input_moments(model, sites):
    x = images(48, loc=0.4)
    reference, _ = input_moments(model, sites, [x])
    for batches in (split(x, 7, 20), [x[::-1]], split(x[::-1], 40)):
        other, _ = input_moments(model, sites, batches)
        assert worst(other, [(m.mean, m.variance) for m in reference]) < 2e-5


def test_batching_changes_one_pass_statistics_from_the_second_site_on(model, sites):
    x = images(48, loc=0.4)
    x[:24] += 1.5  # as class-sorted data are: the batches differ
    whole, _ = one_pass(model, sites, [x])
    halves, _ = one_pass(model, sites, split(x, 24))
    first, *deeper = (worst([a], [(b.mean, b.variance)]) for a, b in zip(halves, whole, strict=True))
    assert first < 2e-5
    assert min(deeper) > 1e-2


@pytest.mark.parametrize("kind", NETS)
def test_measuring_changes_nothing_in_the_model(kind):
    model = NETS[kind]()
    sites = find_sites(model, images(1))
    before, expected = [w.copy() for w in model.get_weights()], np.array(model(images(4)))
    one_pass(model, sites, [images(16)])
    input_moments(model, sites, [images(16)])
    assert all(a.tobytes() == b.tobytes() for a, b in zip(before, model.get_weights(), strict=True))
    np.testing.assert_array_equal(model(images(4)), expected)
    assert not any("call" in vars(site.layer) for site in sites)


@pytest.mark.parametrize("kind", NETS)
def test_what_was_measured_is_stored_and_found_again(kind):
    model = NETS[kind]()
    sites = find_sites(model, images(1))
    batches = split(images(48, loc=0.4), 24)
    moments, _ = one_pass(model, sites, batches)
    measurement = measured_in_one_pass(model, sites, lambda: batches)
    assert measurement.images == 48
    assert measurement.residual < 1e-5
    for site, expected in zip((s for s in sites if s.calls), moments, strict=True):
        np.testing.assert_allclose(site.statistics.mean, expected.mean, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(site.statistics.variance, expected.variance, rtol=1e-6)


def test_one_batch_of_everything_makes_statistics_that_their_own_network_sees(model, sites):
    x = images(48, loc=0.4)
    measured_in_one_pass(model, sites, lambda: [x])
    seen, _ = input_moments(model, sites, [x])
    stored = [(s.statistics.mean.astype(float), s.statistics.variance.astype(float)) for s in sites]
    assert worst(seen, stored) < 1e-4


def test_data_that_differ_between_the_passes_leave_a_residual(model, sites):
    sets = iter([[images(48, seed=1)], [images(48, seed=9, loc=1.0)]])
    assert measured_in_one_pass(model, sites, lambda: next(sets)).residual > 0.1


@pytest.mark.parametrize(("prior", "share"), [(0, 1.0), (48, 0.5), (144, 0.25)])
def test_a_prior_weighs_the_earlier_statistics_as_so_many_images(model, sites, prior, share):
    before = [site.statistics for site in sites]
    measured, _ = one_pass(model, sites, [images(48)])
    measured_in_one_pass(model, sites, lambda: [images(48)], prior=prior)
    for site, old, new in zip(sites, before, measured, strict=True):
        np.testing.assert_allclose(site.statistics.mean, (1 - share) * old.mean + share * new.mean, atol=1e-5)
        np.testing.assert_allclose(
            site.statistics.variance, (1 - share) * old.variance + share * new.variance, rtol=1e-5
        )


def test_dropout_stays_off_while_measuring(model, sites):
    first, _ = one_pass(model, sites, [images(48)])
    second, _ = one_pass(model, sites, [images(48)])
    assert all((a.mean == b.mean).all() for a, b in zip(first, second, strict=True))


def test_a_shared_layer_pools_all_its_calls():
    import keras
    from keras import layers

    shared = layers.BatchNormalization()
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.ops.concatenate([shared(inputs), shared(inputs * 3 + 1)]))
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    ((moments,), _) = input_moments(model, find_sites(model, x[:1]), [x[:20], x[20:]])
    both = np.concatenate([x, x * 3 + 1]).astype(np.float64)
    assert moments.count == 100
    np.testing.assert_allclose(moments.mean, both.mean(0), atol=1e-6)
    np.testing.assert_allclose(moments.variance, both.var(0), rtol=1e-5)


def test_masked_steps_do_not_count():
    import keras
    from keras import layers

    inputs = keras.Input((6, 2))
    model = keras.Model(inputs, layers.BatchNormalization()(layers.Masking(mask_value=-9.0)(inputs)))
    x = np.random.default_rng(0).normal(size=(20, 6, 2)).astype(np.float32)
    x[:, 4:] = -9.0
    ((moments,), _) = input_moments(model, find_sites(model, x[:1]), [x])
    valid = x[:, :4].reshape(-1, 2).astype(np.float64)
    assert moments.count == len(valid)
    np.testing.assert_allclose(moments.mean, valid.mean(0), atol=1e-6)
    np.testing.assert_allclose(moments.variance, valid.var(0), rtol=1e-5)


def test_an_empty_calibration_set_is_refused_and_everything_is_given_back(model, sites):
    with pytest.raises(ValueError, match="calibration set is empty"):
        measured_in_one_pass(model, sites, list)
    assert not any("call" in vars(site.layer) for site in sites)


def test_data_that_raise_midway_leave_the_statistics_alone(model, sites):
    before = [site.statistics for site in sites]

    def broken():
        yield images(16)
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="went away"):
        measured_in_one_pass(model, sites, broken)
    assert all(s.statistics.identical(b) for s, b in zip(sites, before, strict=True))
    assert not any("call" in vars(site.layer) for site in sites)


def test_float16_compute_is_measured_without_overflow():
    import keras

    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        model = functional_net()
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    x = images(32, loc=30.0, scale=200.0)  # squares beyond 65504, the largest float16
    measured, _ = one_pass(model, find_sites(model, x[:1]), [x])
    assert all(np.isfinite(m.variance).all() for m in measured)
    assert measured[0].variance.max() > 1e4


def test_moments_of_unequal_batches_weigh_by_their_size():
    parts = [PopulationMoments.of_batch(1, [0.0], [0.0]), PopulationMoments.of_batch(3, [4.0], [0.0])]
    assert PopulationMoments.pool(parts).mean == pytest.approx([3.0])


def wide_network():
    """Behind a 1 x 1 convolution to many channels, and behind one to few."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(12, 1)(inputs)))
    x = layers.BatchNormalization()(layers.Conv2D(4, 1, use_bias=False)(x))
    return keras.Model(inputs, x)


def test_sites_behind_convolutions_are_measured_in_one_pass_as_float64_measures_them():
    model, x = wide_network(), images(48, loc=0.4, scale=2.0)
    first, second = (layer for layer in model.layers if isinstance(layer, layers.Conv2D))
    y = x.astype(np.float64) @ np.float64(first.kernel[0, 0])
    expected = [(y.mean((0, 1, 2)), y.var((0, 1, 2)))]
    z = np.maximum((y - expected[0][0]) / np.sqrt(expected[0][1] + 1e-3), 0) @ np.float64(second.kernel[0, 0])
    expected.append((z.mean((0, 1, 2)), z.var((0, 1, 2))))
    measured, _ = one_pass(model, find_sites(model, x[:1]), [x])
    assert worst(measured, expected) < 2e-5


def test_what_is_stored_does_not_change_what_is_measured_in_one_pass():
    """So that the same images measured again are the same bytes."""
    model, x = wide_network(), images(48, loc=0.4, scale=2.0)
    sites = find_sites(model, x[:1])
    first, _ = one_pass(model, sites, [x])
    for layer in (site.layer for site in sites):
        layer.moving_mean.assign(layer.moving_mean + 3.0)
        layer.moving_variance.assign(layer.moving_variance * 7.0)
    again, _ = one_pass(model, sites, [x])
    for a, b in zip(first, again, strict=True):
        assert (a.mean.tobytes(), a.m2.tobytes()) == (b.mean.tobytes(), b.m2.tobytes())
