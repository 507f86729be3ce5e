"""Images of several classes each, divided: every part gets its share of every class."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.datasets.flag_split import deal_flags

TENTHS = (0.8, 0.1, 0.1)


def some_flags(count, seed, shares=(0.5, 0.3, 0.05, 0.02)):
    return (np.random.default_rng(seed).random((count, len(shares))) < shares).astype(int)


@settings(max_examples=40)
@given(st.integers(20, 300), st.integers(0, 99), st.sampled_from([TENTHS, (0.25,) * 4, (0.5, 0.5)]))
def test_every_image_is_dealt_once_and_parts_have_about_their_size(count, seed, shares):
    part = deal_flags(some_flags(count, seed), shares, seed)
    assert part.shape == (count,)
    assert set(part) <= set(range(len(shares)))
    sizes = np.bincount(part, minlength=len(shares)) / count
    np.testing.assert_allclose(sizes, shares, atol=0.1 + 5 / count)


@pytest.mark.parametrize("seed", range(5))
def test_every_class_is_shared_more_evenly_than_by_chance(seed):
    """Against the same sizes dealt at random, by the mean distance of the shares of every class from those wanted."""
    flags = some_flags(1000, seed)
    part = deal_flags(flags, TENTHS, seed)
    shuffled = np.random.default_rng(seed).permutation(part)

    def off(parts):
        shares = [flags[parts == p].sum(0) / flags.sum(0) for p in range(3)]
        return np.abs(np.array(shares) - np.array(TENTHS)[:, None]).mean()

    assert off(part) < 0.01 < off(shuffled)


@pytest.mark.parametrize("count", [3, 5, 9])
def test_a_rare_class_is_in_every_part(count):
    flags = np.zeros((200, 2), int)
    flags[:count, 0] = 1
    flags[count:, 1] = 1
    part = deal_flags(flags, TENTHS, 0)
    assert set(part[:count]) == {0, 1, 2}


def test_the_seed_decides_and_nothing_else():
    flags = some_flags(100, 0)
    assert np.array_equal(deal_flags(flags, TENTHS, 1), deal_flags(flags, TENTHS, 1))
    assert not np.array_equal(deal_flags(flags, TENTHS, 1), deal_flags(flags, TENTHS, 2))


def test_images_that_show_nothing_fill_what_is_left():
    part = deal_flags(np.zeros((50, 3), int), (0.6, 0.4), 0)
    assert np.bincount(part).tolist() == [30, 20]
