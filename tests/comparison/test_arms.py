"""What stands beside each other: settings are for all policies, keys of policies for those that have them."""

import pytest

from finetune.comparison.arms import Arm, alternatives, arms_of
from finetune.errors import InputError


def test_several_values_vary_and_one_is_fixed():
    assert alternatives(["data.batch_size=8,32", "backbone.source=bundled"]) == (
        (("data.batch_size=8", "data.batch_size=32"),),
        ("backbone.source=bundled",),
    )


def test_commas_in_brackets_belong_to_a_value():
    varied, fixed = alternatives(
        ["stages.0.batch_size=[8,16],[32,64]", "data.shift={kind: fog, severity: 3}"]
    )
    assert varied == (("stages.0.batch_size=[8,16]", "stages.0.batch_size=[32,64]"),)
    assert fixed == ("data.shift={kind: fog, severity: 3}",)


@pytest.mark.parametrize("values", ["8,", "8,8", "a b,c"])
def test_values_that_are_empty_twice_there_or_have_blanks_are_refused(values):
    with pytest.raises(InputError) as refused:
        alternatives([f"data.batch_size={values}", "seed=,1"])
    assert len(refused.value.problems) == 2
    assert refused.value.problems[0] == (
        f"--set data.batch_size={values}: expected different values between commas, without blanks, "
        "as in data.batch_size=8,32"
    )


def test_every_policy_meets_every_setting():
    varied, _ = alternatives(["data.batch_size=8,32", "data.shift.kind=fog,blur"])
    arms = arms_of(("freeze", "retrain"), varied)
    assert len(arms) == len(set(arms)) == 8
    assert arms[0] == Arm("data.batch_size=8 data.shift.kind=fog", "freeze")


def test_a_key_of_policies_varies_only_those_that_have_it():
    varied, _ = alternatives(["batchnorm.momentum=0.9,0.99"])
    assert [arm.name for arm in arms_of(("freeze", "retrain"), varied)] == [
        "freeze",
        "retrain momentum=0.9",
        "retrain momentum=0.99",
    ]


def test_a_single_value_of_such_a_key_is_no_problem_of_the_others():
    varied, fixed = alternatives(["batchnorm.momentum=0.9"])
    assert fixed == ()
    assert [arm.overrides for arm in arms_of(("freeze", "retrain"), varied)] == [
        [],
        ["batchnorm.momentum=0.9"],
    ]


def test_a_key_that_no_policy_has_is_refused():
    varied, _ = alternatives(["batchnorm.momentun=0.9,0.99"])
    with pytest.raises(
        InputError, match=r"--set batchnorm\.momentun: none of freeze, retrain has such a key"
    ):
        arms_of(("freeze", "retrain"), varied)
