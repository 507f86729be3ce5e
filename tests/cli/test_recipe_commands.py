"""`finetune check`, `show`, `list` and `schema` read recipes and say what is in them."""

import json
from pathlib import Path

import pytest
import yaml

from finetune.recipe_file import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
GOOD = RECIPES / "resnet_freeze.yaml"


@pytest.fixture
def bad(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(GOOD.read_text().replace("epochs: 2", "epochs: five").replace("seed", "sed"))
    return path


def line_of(path, text):
    return path.read_text().splitlines().index(text) + 1


def test_check_says_what_a_good_recipe_is(finetune):
    assert finetune("check", GOOD) == (
        0,
        f"ok  {GOOD}: bundled resnet50_quarter, freeze, tfds fashion_shift\n",
        "",
    )


def test_check_names_every_problem_and_leaves_with_2(finetune, bad):
    line = line_of(bad, "    epochs: five")
    assert finetune("check", bad) == (
        2,
        "",
        f"error: {bad}:{line} stages[0].epochs: expected a whole number, got 'five'\n",
    )


def test_check_names_a_file_where_the_source_has_no_names(finetune):
    answer = finetune("check", GOOD, "--set", "backbone={source: saved, path: mine.keras}")
    assert answer.out == f"ok  {GOOD}: saved mine.keras, freeze, tfds fashion_shift\n"


def test_check_names_the_policy_of_every_rule(finetune):
    answer = finetune("check", RECIPES / "resnet_rules.yaml")
    assert ", affine at *v2_stack_3_*, retrain at *, tfds" in answer.out


def test_check_goes_on_after_a_bad_recipe(finetune, bad):
    answer = finetune("check", bad, GOOD)
    assert answer.code == 2
    assert answer.out.startswith(f"ok  {GOOD}")


def test_check_as_json_holds_the_problems(finetune, bad):
    answer = finetune("check", GOOD, bad, "--json")
    good, spoiled = json.loads(answer.out)
    assert answer.code == 2
    assert (good["ok"], good["problems"]) == (True, [])
    assert spoiled["recipe"] == str(bad)
    assert "expected a whole number" in spoiled["problems"][0]


def test_check_applies_overrides(finetune):
    answer = finetune("check", GOOD, "--set", "seed=x")
    assert answer == (2, "", "error: --set seed=x: expected a whole number, got 'x'\n")


def test_what_show_writes_is_the_same_recipe(finetune, tmp_path):
    copy = tmp_path / "copy.yaml"
    copy.write_text(finetune("show", GOOD, "--set", "seed=4").out)
    assert load_recipe(copy) == load_recipe(GOOD, ["seed=4"])


def test_show_as_json_holds_the_same_values(finetune):
    assert json.loads(finetune("show", GOOD, "--json").out) == yaml.safe_load(finetune("show", GOOD).out)


def test_show_of_a_bad_recipe_leaves_with_2(finetune, bad):
    answer = finetune("show", bad)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"error: {bad}:")


@pytest.mark.parametrize(
    ("kind", "some"),
    [
        ("policies", {"freeze", "recalibrate", "retrain"}),
        ("backbones", {"bundled", "keras_cv", "keras_applications", "saved"}),
        ("datasets", {"tfds", "image_folder", "image_table"}),
    ],
)
def test_list_names_what_a_recipe_can_name(finetune, kind, some):
    rows = json.loads(finetune("list", kind, "--json").out)
    assert {row["name"] for row in rows} >= some
    assert all(row["what"] for row in rows)
    table = finetune("list", kind).out
    assert all(name in table for name in some)


def test_list_tells_which_architectures_there_are(finetune):
    rows = {row["name"]: row for row in json.loads(finetune("list", "backbones", "--json").out)}
    assert "resnet50" in rows["keras_cv"]["keys"]["name"]["choices"]


def test_list_tells_what_each_network_is_made_of(finetune):
    rows = {row["name"]: row for row in json.loads(finetune("list", "backbones", "--json").out)}
    network = rows["keras_applications"]["networks"]["MobileNetV2"]
    assert (network["sites"], network["momentum"], network["preprocessing"]) == (52, [0.999], "-1..1")
    printed = finetune("list", "backbones", "--source", "keras_applications").out
    assert "MobileNetV2" in printed
    assert "csp_darknet_l" not in printed


def test_list_refuses_a_source_that_is_none(finetune):
    answer = finetune("list", "backbones", "--source", "timm")
    assert answer.code == 2
    assert "--source timm: no such source of backbones; expected one of bundled, " in answer.err


def test_list_of_recipes_says_what_each_one_is(finetune):
    rows = json.loads(finetune("list", "recipes", "--folder", RECIPES, "--json").out)
    assert {"name": str(GOOD), "what": "bundled resnet50_quarter, freeze, tfds fashion_shift"} in rows


def test_list_of_recipes_names_the_bad_ones_too(finetune, bad):
    (row,) = json.loads(finetune("list", "recipes", "--folder", bad.parent, "--json").out)
    assert row["what"] == f"cannot be read: finetune check {bad}"


def test_list_of_recipes_in_an_empty_folder_says_so(finetune, tmp_path):
    answer = finetune("list", "recipes", "--folder", tmp_path)
    assert answer == (0, "", f"no recipes in {tmp_path}; --folder names another place\n")


def test_schema_is_json_with_every_section(finetune):
    schema = json.loads(finetune("schema").out)
    assert {"backbone", "data", "head", "batchnorm", "stages", "tracking", "seed"} <= set(
        schema["properties"]
    )
