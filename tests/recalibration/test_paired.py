"""Intervals of differences hold what they promise."""

import numpy as np
import pytest

from finetune.evaluate import expected_calibration_error
from finetune.recalibration.labelled import balanced, calibration_error, differences, right
from finetune.recalibration.paired import Difference, accuracy_difference, bootstrapped, wilson


def answers(random, n, p_both=0.6, p_gained=0.15, p_lost=0.1):
    """Who is right about n images: before, after."""
    kinds = random.choice(4, n, p=[p_both, p_gained, p_lost, 1 - p_both - p_gained - p_lost])
    return (kinds == 0) | (kinds == 2), (kinds == 0) | (kinds == 1)


def probabilities(random, n, classes=4):
    return random.dirichlet(np.full(classes, 0.5), n)


@pytest.mark.parametrize("n", [30, 300])
@pytest.mark.parametrize("shares", [(0.6, 0.15, 0.1), (0.9, 0.05, 0.02), (0.05, 0.8, 0.0)])
def test_the_interval_of_an_accuracy_difference_covers_the_truth(n, shares):
    random = np.random.default_rng(n)
    truth = shares[1] - shares[2]
    found = [accuracy_difference(*answers(random, n, *shares)) for _ in range(1000)]
    assert 0.93 <= np.mean([d.low <= truth <= d.high for d in found]) <= 0.999


def test_it_agrees_with_drawing_anew_where_images_are_many():
    before, after = answers(np.random.default_rng(1), 1000)
    closed = accuracy_difference(before, after)
    drawn = bootstrapped(lambda w: w @ before / 1000, lambda w: w @ after / 1000, 1000)
    assert drawn.value == pytest.approx(closed.value)
    assert (drawn.low, drawn.high) == pytest.approx((closed.low, closed.high), abs=4e-3)


def test_exchanging_the_models_turns_the_interval_round():
    before, after = answers(np.random.default_rng(2), 80)
    there, back = accuracy_difference(before, after), accuracy_difference(after, before)
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_the_bounds_of_wilson_are_where_the_score_test_is_at_its_limit(share):
    for bound in wilson(share, 40):
        spread = np.sqrt(bound * (1 - bound) / 40)
        assert abs(share - bound) == pytest.approx(1.959963984540054 * spread, abs=1e-9)


def test_one_image_that_is_lost_does_not_prove_a_fall():
    found = accuracy_difference(np.array([True]), np.array([False]))
    assert (found.value, found.low) == (-1, -1)
    assert found.high > 0


def test_metrics_of_images_that_count_once_are_the_plain_ones():
    random = np.random.default_rng(3)
    given, labels = probabilities(random, 200), random.integers(0, 3, 200)
    once = np.ones((1, 200))
    recalls = [np.mean(given[labels == c].argmax(axis=1) == c) for c in range(3)]
    assert balanced(given, labels)(once)[0] == pytest.approx(np.mean(recalls))
    assert calibration_error(given, labels)(once)[0] == pytest.approx(
        expected_calibration_error(given, labels)
    )


def test_a_weight_of_two_is_an_image_that_is_there_twice():
    random = np.random.default_rng(4)
    given, labels = probabilities(random, 50), random.integers(0, 4, 50)
    weights = random.integers(0, 3, 50)
    again = np.repeat(np.arange(50), weights)
    for metric in (balanced, calibration_error):
        weighted = metric(given, labels)(weights[None].astype(float))[0]
        assert weighted == pytest.approx(metric(given[again], labels[again])(np.ones((1, len(again))))[0])


def test_a_class_that_is_not_drawn_does_not_count():
    random = np.random.default_rng(7)
    given, labels = probabilities(random, 50), random.integers(0, 4, 50)
    left = labels != 2
    without = balanced(given, labels)(left[None].astype(float))[0]
    assert without == pytest.approx(balanced(given[left], labels[left])(np.ones((1, int(left.sum()))))[0])


def test_the_same_model_twice_differs_by_nothing():
    random = np.random.default_rng(5)
    given, labels = probabilities(random, 100), random.integers(0, 4, 100)
    found = differences(given, given, labels)
    assert set(found) == {"accuracy", "balanced_accuracy", "expected_calibration_error"}
    assert [d.value for d in found.values()] == [0, 0, 0]
    assert found["balanced_accuracy"] == Difference(0, 0, 0)
    assert found["accuracy"].low <= 0 <= found["accuracy"].high


def test_intervals_are_the_same_every_time():
    random = np.random.default_rng(6)
    first, second = probabilities(random, 100), probabilities(random, 100)
    labels = random.integers(0, 4, 100)
    assert differences(first, second, labels) == differences(first, second, labels)
    assert right(first, labels).shape == (100,)
