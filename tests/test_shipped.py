"""Shipped recipes as one's own to begin with."""

from pathlib import Path

import pytest

from finetune.errors import InputError, OutputError
from finetune.recipe_file import load_recipe
from finetune.shipped import copy_recipe, shipped_folder, shipped_recipes

ROOT = Path(__file__).parents[1]


def test_in_a_checkout_they_are_those_beside_the_package():
    assert shipped_folder() == ROOT / "recipes"
    assert set(shipped_recipes()) == {path.stem for path in (ROOT / "recipes").glob("*.yaml")}


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_copy_is_the_same_recipe_under_its_own_name(name, tmp_path):
    copy_recipe(name, tmp_path / "mine.yaml")
    copied, shipped = load_recipe(tmp_path / "mine.yaml"), load_recipe(shipped_recipes()[name])
    assert copied.model_copy(update={"name": shipped.name}) == shipped
    text = (tmp_path / "mine.yaml").read_text()
    assert f"#   finetune run {tmp_path / 'mine.yaml'}\n" in text
    assert "$schema" not in text


def test_a_copy_beside_a_schema_keeps_the_line_for_editors(tmp_path):
    (tmp_path / "schema.json").write_text("{}")
    copy_recipe("resnet_freeze", tmp_path / "mine.yaml")
    assert (tmp_path / "mine.yaml").read_text().startswith("# yaml-language-server: $schema=schema.json\n")


def test_a_name_that_is_not_shipped_is_corrected(tmp_path):
    with pytest.raises(
        InputError, match=r"no recipe 'resnet_freez': expected .*; did you mean 'resnet_freeze'\?$"
    ):
        copy_recipe("resnet_freez", tmp_path / "mine.yaml")
    assert not list(tmp_path.iterdir())


def test_no_recipe_is_overwritten(tmp_path):
    (tmp_path / "mine.yaml").write_text("mine")
    with pytest.raises(OutputError, match=r"mine\.yaml: is there already; name another file"):
        copy_recipe("resnet_freeze", tmp_path / "mine.yaml")
    assert (tmp_path / "mine.yaml").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(
        OutputError, match=r"cannot be written \(No such file or directory\); name another file"
    ):
        copy_recipe("resnet_freeze", tmp_path / "missing" / "mine.yaml")
