"""Matched statistics keep what a site hands on; a live network in depth, and the arithmetic in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.batchnorm.matching import matched, matched_affine, with_prior
from finetune.batchnorm.measure import measure
from finetune.batchnorm.moments import RunningStatistics
from finetune.batchnorm.population import input_moments
from finetune.batchnorm.sites import find_sites
from tests.nets import NETS, images

CHANNELS = 4


def statistics(seed):
    random = np.random.default_rng(seed)
    return RunningStatistics(random.normal(0, 3, CHANNELS), random.uniform(0.1, 9, CHANNELS))


def values(like, seed, count=500):
    """Samples with exactly these moments."""
    x = np.random.default_rng(seed).normal(size=(count, CHANNELS))
    x = (x - x.mean(0)) / x.std(0)
    return x * np.sqrt(like.variance) + like.mean


def normalised(x, by, epsilon):
    return (x - by.mean) / np.sqrt(by.variance + epsilon)


@given(st.integers(0, 999), st.sampled_from([1e-5, 1e-3]))
@settings(max_examples=60)
def test_what_is_handed_on_has_the_moments_that_it_had_on_the_reference(seed, epsilon):
    stored, reference, measured = (statistics(seed + 1000 * k) for k in range(3))
    before = normalised(values(reference, seed), stored, epsilon)
    after = normalised(values(measured, seed + 1), matched(stored, reference, measured, epsilon), epsilon)
    np.testing.assert_allclose(after.mean(0), before.mean(0), atol=1e-9)
    # epsilon stands inside every variance, so spreads agree up to its share in them
    np.testing.assert_allclose(after.std(0), before.std(0), rtol=10 * epsilon)


@given(st.integers(0, 999))
@settings(max_examples=30)
def test_it_is_plain_where_stored_and_reference_agree(seed):
    stored, measured = statistics(seed), statistics(seed + 1)
    result = matched(stored, stored, measured, 1e-3)
    np.testing.assert_allclose(result.mean, measured.mean, rtol=1e-12)
    np.testing.assert_allclose(result.variance, measured.variance, rtol=1e-12)


@given(st.integers(0, 999))
@settings(max_examples=30)
def test_it_leaves_the_site_alone_where_nothing_changed(seed):
    stored, reference = statistics(seed), statistics(seed + 1)
    result = matched(stored, reference, reference, 1e-3)
    np.testing.assert_allclose(result.mean, stored.mean, rtol=1e-12)
    np.testing.assert_allclose(result.variance, stored.variance, rtol=1e-12)


@given(st.integers(0, 999))
@settings(max_examples=30)
def test_scale_and_offset_say_the_same_as_the_statistics(seed):
    stored, reference, measured = (statistics(seed + 1000 * k) for k in range(3))
    x = values(measured, seed)
    scale, offset = matched_affine(stored, reference, 1e-3)
    by_statistics = normalised(x, matched(stored, reference, measured, 1e-3), 1e-3)
    np.testing.assert_allclose(
        normalised(x, measured, 1e-3) * scale + offset, by_statistics, rtol=1e-9, atol=1e-9
    )


def test_a_channel_without_spread_gets_no_negative_variance():
    stored = RunningStatistics(np.zeros(1), np.ones(1))
    wide = RunningStatistics(np.zeros(1), np.full(1, 100.0))
    dead = RunningStatistics(np.zeros(1), np.zeros(1))
    assert matched(stored, wide, dead, 1e-3).variance == [0.0]


def test_a_prior_is_a_weighted_mean():
    before, measured = (
        RunningStatistics(np.zeros(1), np.ones(1)),
        RunningStatistics(np.ones(1), np.full(1, 3.0)),
    )
    result = with_prior(before, measured, prior=30, images=10)
    assert (result.mean[0], result.variance[0]) == (0.25, 1.5)


def test_without_a_prior_nothing_of_the_earlier_statistics_is_left():
    before = RunningStatistics(np.array([np.nan]), np.array([np.inf]))
    result = with_prior(before, RunningStatistics(np.ones(1), np.full(1, 3.0)), prior=0, images=10)
    assert (result.mean[0], result.variance[0]) == (1.0, 3.0)


@pytest.mark.parametrize("method", ["layerwise", "one_pass"])
@pytest.mark.parametrize("kind", NETS)
def test_every_site_of_a_live_network_hands_on_its_reference_moments(kind, method):
    """The sites of these networks store anything but the moments of their data."""
    model, x = NETS[kind](), images(48, loc=0.4)
    sites = [site for site in find_sites(model, x[:1]) if site.calls]
    assert len(sites) >= 2
    reference, _ = input_moments(model, sites, [x])
    by_path = {site.path: m for site, m in zip(sites, reference, strict=True)}
    stored = [site.statistics for site in sites]
    darker = 0.3 * x - 1.0
    measurement = measure(model, sites, lambda: [darker], method=method, reference=by_path)
    assert measurement.kind == "matched"
    assert measurement.residual < 2e-5
    now, _ = input_moments(model, sites, [darker])
    for site, was, ref, seen in zip(sites, stored, reference, now, strict=True):
        eps, is_ = site.epsilon, site.statistics
        handed_on = (ref.mean - was.mean) / np.sqrt(was.variance + eps)
        hands_on = (seen.mean - is_.mean) / np.sqrt(is_.variance + eps)
        np.testing.assert_allclose(hands_on, handed_on, atol=1e-3)
        spread = np.sqrt((ref.variance + eps) / (was.variance + eps))
        np.testing.assert_allclose(np.sqrt((seen.variance + eps) / (is_.variance + eps)), spread, rtol=1e-3)


@pytest.mark.parametrize("method", ["layerwise", "one_pass"])
def test_a_live_network_whose_images_did_not_change_keeps_its_predictions(model, sites, method):
    x = images(48, loc=0.4)
    reference, _ = input_moments(model, sites, [x])
    before = np.asarray(model(x))
    by_path = {site.path: m for site, m in zip(sites, reference, strict=True)}
    measure(model, sites, lambda: [x], reference=by_path, method="layerwise")
    np.testing.assert_allclose(model(x), before, atol=1e-4)
    plain = np.asarray(model(x))
    measure(model, sites, lambda: [x], method=method)
    assert np.max(np.abs(np.asarray(model(x)) - plain)) > 0.05


def test_a_site_without_reference_is_refused_by_name(model, sites):
    moments, _ = input_moments(model, sites, [images(16)])
    some = {site.path: m for site, m in zip(sites[:2], moments[:2], strict=True)}
    with pytest.raises(ValueError, match=r"no reference statistics for bn_3"):
        measure(model, sites, lambda: [images(16)], reference=some)
