"""Site paths in a sentence: three of them, and how many more."""

import pytest

from finetune.batchnorm.naming import named, some


@pytest.mark.parametrize(
    ("paths", "said"),
    [([], ""), (["b"], "b"), (["b", "a", "c"], "b, a, c"), (list("badc"), "b, a, d and 1 more")],
)
def test_some_keep_their_order(paths, said):
    assert some(paths) == said


@pytest.mark.parametrize(
    ("paths", "said"), [(set(), ""), ({"b", "a"}, ": a, b"), (set("edcba"), ": a, b, c and 2 more")]
)
def test_named_are_sorted_and_end_a_sentence(paths, said):
    assert named(paths) == said
