"""Moments of arrays against NumPy's own mean and variance in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.batchnorm import array_moments as subject
from finetune.batchnorm.array_moments import array_moments
from finetune.batchnorm.moments import PopulationMoments


def apart(found: PopulationMoments, values: np.ndarray) -> float:
    """The largest distance of a mean or standard deviation, in standard deviations."""
    axes = (0, *range(2, values.ndim))
    wide = values.astype(np.float64)
    mean, sd = wide.mean(axes), wide.std(axes)
    # of values that are all the same, it is a distance as it is
    sd[sd == 0.0] = 1.0
    assert found.count == values.size / values.shape[1]
    means, spreads = abs(found.mean - mean) / sd, abs(np.sqrt(found.variance) - wide.std(axes)) / sd
    return float(max(means.max(), spreads.max()))


@settings(max_examples=60)
@given(
    images=st.integers(2, 9),
    channels=st.integers(1, 5),
    space=st.lists(st.integers(1, 40), max_size=3),
    mean=st.sampled_from([0.0, 1.5, -2.5, 60.0, -3e4, 2e6]),
    precise=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_they_are_those_of_all_values_whatever_the_rank_and_the_mean(
    images, channels, space, mean, precise, seed
):
    random = np.random.default_rng(seed)
    # each channel about a mean of its own, so that some are read again and others are not
    means = (mean * random.uniform(0.5, 1.5, channels)).reshape(-1, *[1] * len(space))
    values = random.normal(means, 1.0, (images, channels, *space)).astype(np.float32)
    assert apart(array_moments(values, precise=precise), values) < (1e-9 if precise else 2e-6)


@pytest.mark.parametrize("shape", [(40, 24, 50, 50), (40, 1024, 5, 5), (3000, 400), (3, 8, 300, 300)])
@pytest.mark.parametrize("mean", [0.5, -7.0])
def test_arrays_that_no_cache_holds_are_read_in_pieces_and_as_exact(shape, mean):
    values = np.random.default_rng(0).normal(mean, 1.0, shape).astype(np.float32)
    assert values.size > 2 * subject.IN_CACHE
    assert apart(array_moments(values), values) < 1e-6


def test_sums_alone_would_not_do_far_from_zero(monkeypatch):
    values = np.random.default_rng(0).normal(300.0, 1.0, (8, 3, 40, 40)).astype(np.float32)
    assert apart(array_moments(values), values) < 1e-6
    monkeypatch.setattr(subject, "NEAR_ZERO", 1e9)
    assert apart(array_moments(values), values) > 1e-3


def test_a_channel_of_one_value_has_no_variance_and_one_without_a_number_has_none():
    values = np.random.default_rng(0).normal(size=(6, 4, 9, 9)).astype(np.float32)
    values[:, 1] = 0.1
    values[3, 2, 4, 4] = np.nan
    values[3, 3, 4, 4] = np.inf
    found = array_moments(values)
    assert found.mean[1] == np.float32(0.1)
    assert found.variance[1] == 0.0
    assert np.isnan(found.mean[2])
    assert not np.isfinite(found.mean[3])
    assert np.isfinite([found.mean[0], found.variance[0]]).all()


def test_one_axis_is_one_channel():
    values = np.random.default_rng(0).normal(3.0, 1.0, 500).astype(np.float32)
    assert apart(array_moments(values), values[:, np.newaxis]) < 1e-6


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_kinds_of_floats_are_read_as_they_are(dtype):
    values = np.random.default_rng(0).normal(3.0, 1.0, (5, 3, 30, 30)).astype(dtype)
    assert apart(array_moments(values), values) < (1e-12 if dtype is np.float64 else 1e-6)


def test_parts_of_another_array_are_read_in_place():
    whole = np.random.default_rng(0).normal(size=(12, 20, 20, 6)).astype(np.float32)
    channels_last = whole.transpose(0, 3, 1, 2)[::2, 1:]
    assert apart(array_moments(channels_last), np.ascontiguousarray(channels_last)) < 1e-6
