"""Laws of the moments, against NumPy float64 on all values at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.batchnorm.moments import PopulationMoments, RunningStatistics


def moments_of(values: np.ndarray) -> PopulationMoments:
    return PopulationMoments.of_batch(len(values), values.mean(0), values.var(0))


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    channels=st.integers(1, 4),
    offset=st.sampled_from([0.0, 1e3, -1e6]),
    seed=st.integers(0, 2**16),
)
def test_pooling_batches_gives_the_moments_of_all_values(sizes, channels, offset, seed):
    random = np.random.default_rng(seed)
    # batches with means of their own: averaging their variances would be far off
    batches = [random.normal(offset + random.normal(0, 5), 1.5, (n, channels)) for n in sizes]
    pooled = PopulationMoments.pool(moments_of(b) for b in batches)
    everything = np.concatenate(batches)
    assert pooled.count == len(everything)
    np.testing.assert_allclose(pooled.mean, everything.mean(0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(pooled.variance, everything.var(0), rtol=1e-9, atol=1e-12 * max(1, offset**2))


@settings(max_examples=40)
@given(seed=st.integers(0, 2**16), count=st.integers(2, 9))
def test_neither_order_nor_grouping_changes_what_is_pooled(seed, count):
    random = np.random.default_rng(seed)
    parts = [moments_of(random.normal(i, i + 1, (random.integers(1, 30), 3))) for i in range(count)]
    forward = PopulationMoments.pool(parts)
    backward = PopulationMoments.pool(reversed(parts))
    grouped = PopulationMoments.pool(parts[:1]).merge(PopulationMoments.pool(parts[1:]))
    for other in (backward, grouped):
        np.testing.assert_allclose(other.mean, forward.mean, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(other.variance, forward.variance, rtol=1e-11)


def test_the_mean_of_batch_variances_is_not_the_population_variance():
    batches = [np.full((10, 1), 0.0), np.full((10, 1), 4.0)]
    assert PopulationMoments.pool(map(moments_of, batches)).variance == pytest.approx([4.0])
    assert np.mean([b.var(0) for b in batches]) == 0.0


def test_an_empty_part_adds_nothing():
    part = moments_of(np.random.default_rng(0).normal(size=(7, 2)))
    empty = PopulationMoments(0.0, np.zeros(2), np.zeros(2))
    for merged in (part.merge(empty), empty.merge(part)):
        np.testing.assert_allclose(merged.mean, part.mean)
        np.testing.assert_allclose(merged.variance, part.variance)


def test_identical_means_bit_for_bit():
    one = RunningStatistics(np.float32([0.1]), np.float32([1.0]))
    assert one.identical(RunningStatistics(np.float32([0.1]), np.float32([1.0])))
    assert not one.identical(RunningStatistics(np.nextafter(np.float32([0.1]), 1), np.float32([1.0])))
    nan = RunningStatistics(np.float32([np.nan]), np.float32([1.0]))
    assert nan.identical(nan)
