"""Files are read, or answered with the reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.errors import RecipeError
from finetune.recipe_file import LARGEST_FILE, load_recipe, load_text
from tests.recipe_file import GOOD


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(name, data):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)

    return write


def problems(path):
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    return list(caught.value.problems)


def test_a_recipe_is_named_after_its_file(file):
    file("fog 3.yaml", GOOD.encode())
    assert load_recipe("fog 3.yaml").name == "fog-3"


def test_a_name_in_the_recipe_goes_first(file):
    file("fog.yaml", b"name: mine\n" + GOOD.encode())
    assert load_recipe("fog.yaml").name == "mine"


def test_a_byte_order_mark_is_no_part_of_the_recipe(file):
    file("x.yaml", b"\xef\xbb\xbf" + GOOD.encode())
    assert load_recipe("x.yaml") == load_text(GOOD, "x.yaml")


def test_problems_name_the_file_and_the_line(file):
    file("x.yaml", GOOD.replace("epochs: 2", "epochs: five").encode())
    assert problems("x.yaml") == ["x.yaml:12 stages[0].epochs: expected a whole number, got 'five'"]


def test_a_missing_file_is_named_with_its_neighbours(file):
    file("recipes/resnet_freeze.yaml", b"")
    said = ["recipes/resnet_freez.yaml: no such file; did you mean recipes/resnet_freeze.yaml?"]
    assert problems("recipes/resnet_freez.yaml") == said
    assert problems("resnet_freeze") == [
        "resnet_freeze: no such file; did you mean recipes/resnet_freeze.yaml?"
    ]


def test_a_missing_file_without_neighbours_is_named(file):
    assert problems("x.yaml") == ["x.yaml: no such file"]


def test_a_folder_is_no_recipe(file):
    file("some/a.yaml", b"")
    assert problems("some") == ["some: a folder, not a recipe file; it holds a.yaml"]


def test_a_file_beside_a_file_is_no_recipe(file):
    file("a", b"")
    assert problems("a/x.yaml") == ["a/x.yaml: cannot be read: Not a directory"]


def test_bytes_are_no_recipe(file):
    file("x.yaml", b"seed: 1\nname: \xff\n")
    assert problems("x.yaml") == ["x.yaml:2: not UTF-8 text"]


def test_a_huge_file_is_not_read(file):
    file("x.yaml", b"#" * (LARGEST_FILE + 1))
    assert problems("x.yaml") == ["x.yaml: larger than 1000000 bytes; this is no recipe"]


LINES = st.sampled_from(
    [
        *GOOD.splitlines(),
        "- x",
        "seed: -1",
        "  a: &a [*a]",
        "data: {}",
        "stages: {0: 1}",
        "tracking: [",
        "? {}",
        "!x y",
    ]
)


@given(st.lists(LINES, max_size=16).map("\n".join) | st.text(), st.lists(st.text(), max_size=2))
def test_no_text_and_no_override_raise_anything_but_a_recipe_error(text, overrides):
    try:
        problems = load_text(text, "x.yaml", overrides) and ()
    except RecipeError as refused:
        problems = refused.problems
    assert all(problem.isprintable() for problem in problems)
