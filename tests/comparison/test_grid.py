"""Cells: whole recipes, checked before anything is trained, known again by what decides their training."""

import pytest

from finetune.comparison.arms import Arm, alternatives
from finetune.errors import InputError, RecipeError
from finetune.policies import Freeze, Retrain


def test_a_cell_is_the_recipe_with_its_policy_rate_and_seed(grid):
    cell = grid().cell(Arm("data.batch_size=8", "freeze"), 0.003, 4)
    assert cell.recipe.batchnorm == Freeze()
    assert [stage.learning_rate for stage in cell.recipe.stages] == [0.1, 0.003]
    assert (cell.recipe.seed, cell.recipe.data.batch_size) == (4, 8)


def test_without_a_rate_the_recipe_keeps_its_own(grid):
    assert grid().cell(Arm("", "freeze"), None, 0).recipe.stages[1].learning_rate == 0.02


def test_the_recipes_own_policy_keeps_its_keys_and_another_has_its_defaults(grid):
    assert grid().cell(Arm("", "retrain"), None, 0).recipe.batchnorm == Retrain(momentum=0.95)
    assert grid().cell(Arm("", "statistics"), None, 0).recipe.batchnorm.momentum == "auto"
    varied = grid().cell(Arm("", "statistics", "batchnorm.momentum=0.5"), None, 0)
    assert varied.recipe.batchnorm.momentum == 0.5


def test_equal_trainings_have_equal_keys_and_others_do_not(grid, path):
    base = grid().cell(Arm("", "retrain"), None, 0)
    named = path.with_name("other.yaml")
    named.write_text(path.read_text() + "tracking: {experiment: elsewhere}\n")
    same = type(grid())(named, ("retrain",), (), (), (), 1).cell(Arm("", "retrain"), None, 0)
    assert same.key == base.key
    others = [
        grid().cell(Arm("", "freeze"), None, 0),
        grid().cell(Arm("", "retrain"), None, 1),
        grid().cell(Arm("", "retrain"), 0.5, 0),
        grid().cell(Arm("data.batch_size=8", "retrain"), None, 0),
        grid(fixed=("data.shift={kind: fog, severity: 1}",)).cell(Arm("", "retrain"), None, 0),
    ]
    assert len({base.key, *(cell.key for cell in others)}) == 6


def test_a_rate_that_equals_the_recipes_own_is_the_same_training(grid):
    """The first seed of the trials is not trained twice."""
    assert grid().cell(Arm("", "freeze"), 0.02, 0).key == grid().cell(Arm("", "freeze"), None, 0).key


def test_problems_of_all_arms_come_at_once_each_once(grid):
    varied, _ = alternatives(["data.batch_size=8,none", "batchnorm.momentum=0.9,2"])
    with pytest.raises(RecipeError) as refused:
        grid(policies=("freeze", "retrian", "retrain"), varied=varied).check()
    unknown, momentum, size = refused.value.problems
    assert unknown == (
        "--policies: expected some of freeze, recalibrate, retrain, affine, statistics, got 'retrian'; "
        "did you mean 'retrain'?"
    )
    assert size.startswith("--set data.batch_size=none")
    assert not size.endswith(")")
    assert momentum.startswith("--set batchnorm.momentum=2")
    assert momentum.endswith("(retrain)")


def test_what_would_be_said_in_vain_is_refused(grid):
    fixed = ("seed=3", "stages.1.learning_rate=0.1")
    with pytest.raises(InputError) as refused:
        grid(fixed=fixed, rates=(0.1, 0.2)).check()
    assert refused.value.problems == (
        "--set seed=3: --seeds N trains the seeds 0 to N - 1; leave the seed out",
        "--set stages.1.learning_rate=0.1: --learning-rates decides it; add --learning-rates none, or leave it out",
    )
    grid(fixed=fixed[1:]).check()


def test_numbers_that_make_no_grid_are_refused_together(grid):
    with pytest.raises(InputError) as refused:
        grid(policies=("freeze", "freeze"), seeds=0, rates=(0.1, -1.0))
    assert refused.value.problems == (
        "--policies: expected different ones, got freeze,freeze",
        "--seeds: expected 1 or more, got 0",
        "--learning-rates: expected numbers above 0, got 0.1, -1.0",
    )
