"""Recipes as values: what holds for all of them, and for those that are shipped."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.policies import POLICIES, Rules
from finetune.recipe import Recipe, json_schema, resolved
from finetune.recipe_file import load_recipe, load_text, write
from tests.recipe_file import GOOD

RECIPES = Path(__file__).parents[1] / "recipes"
SHIPPED = sorted(RECIPES.glob("*.yaml"))


def test_every_policy_and_every_source_of_weights_has_a_shipped_recipe():
    recipes = [load_recipe(path) for path in SHIPPED]
    assert {type(recipe.policy) for recipe in recipes} >= {*POLICIES, Rules}
    assert {recipe.backbone.source for recipe in recipes} >= {"bundled", "efficientnet_lite", "keras_cv"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_recipe_loads_and_is_named_after_its_file(path):
    assert load_recipe(path).name == path.stem


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_recipe_says_what_it_is_how_to_run_it_and_what_came_out(path):
    schema, *header = path.read_text().split("\n\n")[0].splitlines()
    assert schema == "# yaml-language-server: $schema=schema.json"
    what, command, result = (lines.splitlines() for lines in "\n".join(header).split("\n#\n"))
    assert what[-1].endswith(".")
    assert command == [f"#   finetune run recipes/{path.name}"]
    assert result[0].startswith(("# Result: ", "# Not measured here: "))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_recipe_is_named_after_its_policy(path):
    assert load_recipe(path).policy.policy in path.stem.split("_")


@given(
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True),
    experiment=st.text(min_size=1),
    seed=st.integers(0, 2**32 - 1),
    rate=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    layer=st.text(min_size=1),
)
def test_a_resolved_recipe_written_as_yaml_is_the_same_recipe(name, experiment, seed, rate, layer):
    stage = {"train": {"from": layer}, "epochs": 1, "learning_rate": rate}
    values = resolved(load_text(GOOD)) | {"name": name, "seed": seed, "stages": [stage]}
    values["tracking"] |= {"experiment": experiment}
    recipe = Recipe.model_validate_json(json.dumps(values))
    assert load_text(write(resolved(recipe))) == recipe


def test_a_resolved_recipe_has_every_key_in_the_order_of_the_recipe():
    values = resolved(load_text(GOOD))
    assert list(values) == list(Recipe.model_fields)
    assert list(values["stages"][0])[:3] == ["train", "epochs", "learning_rate"]
    assert next(iter(values["data"])) == "source"
    assert next(iter(values["batchnorm"])) == "policy"


def test_the_registered_name_is_spelt_as_in_the_recipe():
    recipe = load_text(GOOD + "tracking: {register: clothes}\n")
    assert recipe.tracking.register_as == "clothes"
    assert resolved(recipe)["tracking"]["register"] == "clothes"


def test_freeze_takes_batches_of_one_image():
    text = GOOD.replace("policy: retrain\n  finish: none", "policy: freeze\nseed: 1")
    assert load_text(text, overrides=["data.batch_size=1"]).data.batch_size == 1


def keys_and_choices(schema):
    """What an editor completes, by definition; wording and layout are pydantic's, and change with it."""
    return {
        name: {
            key: about.get("enum", about.get("const", about.get("default")))
            for key, about in part["properties"].items()
        }
        for name, part in {"Recipe": schema, **schema["$defs"]}.items()
    }


def test_the_schema_beside_the_recipes_is_up_to_date():
    written = json.loads((RECIPES / "schema.json").read_text())
    assert keys_and_choices(written) == keys_and_choices(json_schema()), (
        "finetune schema > recipes/schema.json"
    )
