"""The shipped recipes: every one loads, and those that need a network are built here without it."""

from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from finetune.comparison.arms import alternatives
from finetune.comparison.grid import Grid
from finetune.prepared import build
from finetune.recipe_file import load_recipe

FOLDER = Path(__file__).resolve().parents[1] / "recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))
SWEEPS = sorted(FOLDER.glob("sweeps/*.yaml"))
NEED_A_NETWORK = [path for path in RECIPES if path.name.startswith("keras_cv_")]


def test_no_recipe_is_forgotten():
    assert len(RECIPES) == 14
    assert len(NEED_A_NETWORK) == 2
    assert len(SWEEPS) == 4


@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.stem)
def test_the_command_in_the_header_of_a_sweep_is_a_grid_that_can_be_carried_out(path):
    header = path.read_text().split("\n\n")[0]
    line = header.replace("\\\n#", "").split("finetune compare ")[1].splitlines()[0].split()
    assert line[0] == f"recipes/sweeps/{path.name}"
    options = list(zip(line[1::2], line[2::2], strict=True))
    varied, fixed = alternatives([value for option, value in options if option == "--set"])
    given = dict(options)
    typed = given["--learning-rates"]
    rates = () if typed == "none" else tuple(map(float, typed.split(",")))
    Grid(path, tuple(given["--policies"].split(",")), varied, fixed, rates, int(given["--seeds"])).check()
    assert "Result: " in header


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_header_says_how_it_was_measured_or_that_it_was_not(path):
    header = path.read_text().split("\n\n")[0]
    assert f"finetune run recipes/{path.name}" in header
    assert ("Not measured here" in header) is (path in NEED_A_NETWORK)


@pytest.fixture
def mocked(tmp_path):
    """Datasets as TFDS mocks them: random images in every split, nothing fetched."""

    def prepare(recipe):
        builder = tfds.builder(recipe.data.name, data_dir=str(tmp_path))
        asked = (recipe.data.train, recipe.data.validation, recipe.data.test)
        names = sorted({split.split("[")[0] for split in asked if split})
        sizes = [tfds.core.SplitInfo(name, [100], 1000) for name in names]
        builder.info.set_splits(tfds.core.SplitDict(sizes))
        builder.data_path.mkdir(parents=True)
        builder.info.write_to_directory(builder.data_path)

    with tfds.testing.mock_data(num_examples=100, data_dir=str(tmp_path)):
        yield prepare


@pytest.mark.parametrize("path", NEED_A_NETWORK, ids=lambda p: p.stem)
def test_recipes_for_imagenet_weights_are_built_with_random_weights_and_mock_data(path, mocked, tmp_path):
    overrides = ["backbone.weights=null", "data.image_size=64", f"data.data_dir={tmp_path}"]
    recipe = load_recipe(path, overrides)
    mocked(recipe)
    splits = recipe.data.load(64, recipe.seed)
    _, trainee = build(recipe, splits)
    images, _ = next(iter(splits.train.examples.batch(2)))
    assert len([site for site in trainee.sites if site.calls]) == 53
    assert trainee.model(images).shape == (2, len(splits.class_names))
