"""Class shares are read from the command line or a file, made to add up to 1, and refused in one line."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.cli.class_shares import shares_in
from finetune.errors import InputError


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=30).filter(any))
def test_counts_become_shares_that_add_up_to_one_and_keep_their_ratios(counts):
    shares = shares_in(",".join(map(str, counts)))
    assert math.isclose(math.fsum(shares), 1)
    assert all(math.isclose(share * sum(counts), count) for share, count in zip(shares, counts, strict=True))


def test_a_file_says_the_same_as_the_command_line(tmp_path):
    file = tmp_path / "shares.json"
    file.write_text("[7000, 2000, 1000]")
    assert shares_in(str(file)) == shares_in("0.7,0.2,0.1") == (0.7, 0.2, 0.1)


@pytest.mark.parametrize("text", ["", "a,b", "1", "0,0", "-1,2", "nan,1", "inf,1", "1,,2", "7 3"])
def test_anything_else_is_refused(text):
    with pytest.raises(InputError, match=r"--class-shares: expected a number a class, as in 7000,3000"):
        shares_in(text)


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "is no JSON"), ('{"a": 1}', "got dict"), ("[[1], 2]", "a number a class")],
)
def test_a_file_with_something_else_is_refused(tmp_path, content, said):
    file = tmp_path / "shares.json"
    file.write_text(content)
    with pytest.raises(InputError, match=said):
        shares_in(str(file))
