"""Intervals and p-values against scipy's own paired t-test; Holm's correction against its definition."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_rel

from finetune.comparison.paired import Pair, compared, verdicts


def pair(p):
    return Pair("a", "b", 0.1, 0.0, 0.2, p, 5)


@pytest.mark.parametrize("seed", range(5))
def test_interval_and_p_are_those_of_a_paired_t_test(seed):
    random = np.random.default_rng(seed)
    one, other = random.normal(0.8, 0.02, 6), random.normal(0.78, 0.02, 6)
    found = compared("one", dict(enumerate(one)), "other", dict(enumerate(other)))
    expected = ttest_rel(one, other)
    low, high = expected.confidence_interval(0.95)
    sign = 1 if found.better == "one" else -1
    assert found.difference == pytest.approx(abs(np.mean(one - other)))
    np.testing.assert_allclose(sorted([sign * found.low, sign * found.high]), [low, high])
    assert found.p == pytest.approx(expected.pvalue)


def test_the_better_one_comes_first_whoever_is_asked_about_first():
    worse, better = {0: 0.1, 1: 0.3}, {0: 0.2, 1: 0.5}
    assert compared("worse", worse, "better", better) == compared("better", better, "worse", worse)
    assert compared("worse", worse, "better", better).better == "better"


def test_only_seeds_of_both_count():
    assert compared("a", {0: 0.5, 1: 0.6, 7: 1.0}, "b", {0: 0.4, 1: 0.4, 8: 0.0}).seeds == 2
    with pytest.raises(ValueError, match="no seed in common"):
        compared("a", {0: 1.0}, "b", {1: 1.0})


def test_one_seed_shows_nothing():
    only = compared("a", {0: 0.9}, "b", {0: 0.1})
    [verdict] = verdicts([only])
    assert (only.p, only.low, only.high) == (1.0, -math.inf, math.inf)
    assert not verdict.shown
    assert verdict.words == "a against b: 80.0 points, of one seed: nothing is shown"


def test_no_difference_at_all_is_none_and_the_same_difference_always_is_one():
    same = {0: 0.5, 1: 0.75, 2: 0.25}
    assert compared("a", same, "b", same).p == 1.0
    assert compared("a", same, "b", {seed: value - 0.125 for seed, value in same.items()}).p == 0.0


def test_holm_holds_the_smallest_p_against_all_comparisons_and_stops_at_the_first_that_fails():
    found = verdicts([pair(0.03), pair(0.01), pair(0.04)])
    assert [verdict.shown for verdict in found] == [False, True, False]
    # .02 passes against .05 / 2 only because .01 passed before it; .04 against .05
    assert [v.shown for v in verdicts([pair(0.02), pair(0.01), pair(0.04)])] == [True, True, True]
    # .04 alone would pass, beside a second that fails it does not
    assert [v.shown for v in verdicts([pair(0.04), pair(0.03)])] == [False, False]


def test_a_difference_that_holds_only_alone_is_said_to():
    first, second = verdicts([Pair("a", "b", 0.02, 0.001, 0.039, 0.04, 5), pair(0.03)])
    assert first.words == (
        "no difference shown between a and b: 2.0 points, 95 % interval 0.1 to 3.9, 5 seeds; "
        "it would be one alone, but not among 2 comparisons"
    )
    assert not second.shown


def test_verdicts_say_points_interval_and_seeds():
    found = Pair("retrain", "freeze", 0.031, 0.019, 0.043, 0.001, 5)
    [shown] = verdicts([found])
    assert shown.words == "retrain beats freeze by 3.1 points, 95 % interval 1.9 to 4.3, 5 seeds"
    [not_shown] = verdicts([Pair("retrain", "freeze", 0.002, -0.01, 0.014, 0.7, 5)])
    assert not_shown.words == (
        "no difference shown between retrain and freeze: 0.2 points, 95 % interval -1.0 to 1.4, 5 seeds"
    )
