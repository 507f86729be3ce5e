"""`--set` changes one value, and answers for it where the value is bad."""

import pytest

from finetune.errors import RecipeError
from finetune.recipe_file import load_text
from tests.recipe_file import GOOD


def load(*overrides):
    return load_text(GOOD, "x.yaml", overrides)


def problems(*overrides):
    with pytest.raises(RecipeError) as caught:
        load(*overrides)
    return list(caught.value.problems)


def test_a_value_in_a_list_is_changed():
    assert load("stages.0.epochs=7").stages[0].epochs == 7


def test_a_place_may_be_written_as_messages_write_it():
    assert load("stages[0].epochs=7") == load("stages.0.epochs=7")


def test_the_value_is_yaml():
    recipe = load("stages.0.learning_rate=1e-3", "data.shift=null", "tracking.enabled=false")
    assert recipe.stages[0].learning_rate == 0.001
    assert recipe.data.shift is None
    assert not recipe.tracking.enabled


def test_a_whole_section_can_be_put():
    assert load("batchnorm={policy: freeze}").batchnorm.policy == "freeze"


def test_a_section_that_the_file_leaves_out_is_made():
    assert load("tracking.experiment=fog").tracking.experiment == "fog"


def test_of_two_overrides_the_later_one_holds():
    assert load("seed=1", "seed=2").seed == 2


def test_everything_else_stays():
    assert load("seed=5").model_copy(update={"seed": 0}) == load()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("stages.0.epochs=x", "--set stages.0.epochs=x: expected a whole number, got 'x'"),
        ("stages.0.epoch=3", "--set stages.0.epoch=3: unknown key 'epoch'; did you mean 'epochs'?"),
        ("stage.epochs=3", "--set stage.epochs=3 stage: unknown key 'stage'; did you mean 'stages'?"),
        ("stages.1.epochs=3", "--set stages.1.epochs=3: stages has items 0 to 0, not '1'"),
        ("stages.first=3", "--set stages.first=3: stages has items 0 to 0, not 'first'"),
        (
            "data.name.x=3",
            "--set data.name.x=3: data.name is a single value, with nothing named 'x' in it",
        ),
        ("seed", "--set seed: expected KEY=VALUE, as in --set stages.0.epochs=2"),
        ("=3", "--set =3: expected KEY=VALUE, as in --set stages.0.epochs=2"),
        ("a..b=3", "--set a..b=3: expected KEY=VALUE, as in --set stages.0.epochs=2"),
        (
            "seed=[1",
            "--set seed=[1: not YAML: while parsing a flow sequence did not find expected ',' or ']'",
        ),
        (
            "data.shift={kind: fog, severity: 9}",
            "--set data.shift={kind: fog, severity: 9} data.shift.severity: expected a number of at most 5, got 9",
        ),
        (
            "batchnorm.freeze_last_epochs=2",
            "--set batchnorm.freeze_last_epochs=2: expected fewer than the 2 epochs of the last stage, got 2",
        ),
    ],
)
def test_a_bad_override_is_named_as_it_was_typed(override, said):
    assert problems(override) == [said]


def test_an_empty_list_has_nothing_to_set():
    assert problems("stages=[]", "stages.0.epochs=1") == [
        "--set stages=[]: expected a list of 1 or more, got an empty list",
        "--set stages.0.epochs=1: stages is an empty list",
    ]


def test_problems_of_overrides_come_after_those_of_the_file():
    with pytest.raises(RecipeError) as caught:
        load_text(GOOD.replace("epochs: 2", "epochs: x"), "x.yaml", ["seed=y"])
    assert [problem.split()[0] for problem in caught.value.problems] == ["x.yaml:12", "--set"]


def test_what_is_no_text_is_refused():
    """As a shell hands on bytes that are no UTF-8; found by scripts/fuzz.py."""
    for given in ("s\udca4ges.0.epochs=2", "name=\udca4"):
        shown = given.replace("\udca4", r"\udca4")
        assert problems(given) == [f"--set {shown}: expected text in UTF-8"]
