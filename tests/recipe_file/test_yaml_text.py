"""YAML is read by the 1.2 core schema, and what is written reads the same."""

import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.recipe_file.yaml_text import NotReadable, read, write

TEXT = st.text() | st.text(alphabet="\x85\u2028\ufeff\r\n\t 0.e:#'\"")
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(PLAIN)
def test_what_is_written_reads_as_the_same_values(values):
    assert read(write(values)).values == values


@given(st.text() | st.text(alphabet="[]{}:,-?&*!|>'\"%#@ \n\tab1.~\x00"))
def test_any_text_is_read_or_refused(text):
    with suppress(NotReadable):
        read(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E+3", 1000.0),
        ("-.5", -0.5),
        ("012", 12),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("yes", "yes"),
        ("NO", "NO"),
        ("true", True),
        ("~", None),
        ("", None),
        ("2024-01-01", "2024-01-01"),
        ("-.inf", -math.inf),
        ("9" * 5000, math.inf),
        ("'1'", "1"),
        ("train[:80%]", "train[:80%]"),
    ],
)
def test_a_plain_scalar_means_what_a_person_expects(text, value):
    found = read(f"key: {text}").values["key"]
    assert found == value
    assert type(found) is type(value)


def test_every_value_has_the_line_of_its_key():
    places = read("a:\n  - b: 1\n    c:\n      2\n  - d\n").places
    assert places == {(): 1, ("a",): 1, ("a", 0): 2, ("a", 0, "b"): 2, ("a", 0, "c"): 3, ("a", 1): 5}


def test_an_alias_stands_for_a_copy():
    values = read("a: &x {b: 1}\nc: *x\n").values
    values["a"]["b"] = 2
    assert values["c"] == {"b": 1}
