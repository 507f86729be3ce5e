"""A fair sample is no skewed one, however few its images."""

import numpy as np
import pytest

from finetune.recalibration.skew import by_chance, class_shares, excess, total_variation, uniform


@pytest.mark.parametrize("n", [1, 7, 64, 500])
@pytest.mark.parametrize("expected", [uniform(10), np.array([0.9, 0.1]), np.array([0.5, 0.5, 0.0])])
def test_what_chance_does_is_what_random_samples_show(n, expected):
    samples = np.random.default_rng(n).multinomial(n, expected, 20_000) / n
    drawn = np.mean([total_variation(shares, expected) for shares in samples])
    assert by_chance(expected, n) == pytest.approx(drawn, abs=4e-3)


def test_it_stays_finite_for_many_classes_and_images():
    assert by_chance(uniform(1000), 512) == pytest.approx(0.6, abs=0.01)
    assert 0 < by_chance(uniform(1000), 10**6) < 0.02


def test_two_classes_of_ten_are_four_fifths_away():
    shares = class_shares(np.array([0] * 200 + [1] * 200), 10)
    assert total_variation(shares, uniform(10)) == pytest.approx(0.8)
    assert excess(shares, uniform(10), 400) > 0.7


def test_the_mix_that_is_expected_is_no_skew():
    labels = np.array([0] * 90 + [1] * 10)
    shares = class_shares(labels, 2)
    assert total_variation(shares, np.array([0.9, 0.1])) == pytest.approx(0)
    assert excess(shares, uniform(2), 100) > 0.3
