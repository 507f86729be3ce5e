"""The three measures of a shift, against closed forms and sampled divergences."""

import numpy as np
import pytest

from finetune.batchnorm.moments import RunningStatistics
from finetune.batchnorm.shift import distance, shift


def statistics(mean, variance) -> RunningStatistics:
    return RunningStatistics(np.asarray(mean, np.float32), np.asarray(variance, np.float32))


def test_nothing_moved_is_no_shift():
    reading = statistics([0.3, -1.0], [2.0, 0.0])
    moved = shift(reading, reading, 1e-3)
    assert (moved.mean, moved.log_std, moved.kl) == (0.0, 0.0, 0.0)


def test_the_mean_is_measured_in_earlier_standard_deviations():
    moved = shift(statistics([1.0, 0.0], [4.0, 1.0]), statistics([3.0, 0.0], [4.0, 1.0]), 0.0)
    assert moved.mean == pytest.approx((2 / 2 + 0) / 2)


def test_a_doubled_spread_is_ln_2_in_either_direction():
    narrow, wide = statistics([0.0], [1.0]), statistics([0.0], [4.0])
    assert shift(narrow, wide, 0.0).log_std == pytest.approx(np.log(2))
    assert shift(wide, narrow, 0.0).log_std == pytest.approx(np.log(2))


def test_kl_is_symmetric_and_equals_the_divergence_of_samples():
    before, after = statistics([0.0], [1.0]), statistics([0.7], [2.5])
    kl = shift(before, after, 0.0).kl
    assert kl == pytest.approx(shift(after, before, 0.0).kl)
    random = np.random.default_rng(0)

    def log_density(x, mean, variance):
        return -0.5 * (np.log(2 * np.pi * variance) + (x - mean) ** 2 / variance)

    p, q = random.normal(0, 1, 400_000), random.normal(0.7, 2.5**0.5, 400_000)
    sampled = np.mean(log_density(p, 0, 1) - log_density(p, 0.7, 2.5))
    sampled += np.mean(log_density(q, 0.7, 2.5) - log_density(q, 0, 1))
    assert kl == pytest.approx(sampled, rel=0.02)


def test_epsilon_keeps_dead_channels_finite():
    moved = shift(statistics([0.0], [0.0]), statistics([0.0], [0.0]), 1e-5)
    assert np.isfinite([moved.mean, moved.log_std, moved.kl]).all()


def test_distance_is_that_of_the_worst_channel():
    measured = statistics([0.0, 0.0], [1.0, 4.0])
    assert distance(statistics([0.1, 1.0], [1.0, 4.0]), measured, 0.0) == pytest.approx(0.5)
    assert distance(statistics([0.0, 0.0], [1.0, 8.0]), measured, 0.0) == pytest.approx(1.0)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_broken_statistic_is_infinitely_far(broken):
    measured = statistics([0.0], [1.0])
    assert distance(statistics([broken], [1.0]), measured, 0.0) == np.inf
    assert distance(measured, statistics([broken], [1.0]), 0.0) == np.inf
