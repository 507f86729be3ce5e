"""Curves over what varies as a number: their points are the lines of the table, in order."""

import pytest

from finetune.comparison.arms import Arm
from finetune.comparison.comparison import Line
from finetune.comparison.curves import curves, drawn


def line(setting, policy, keys="", accuracy=0.5):
    return Line(Arm(setting, policy, keys), None, {0: accuracy, 1: accuracy}, {}, (), 1.0)


@pytest.fixture
def sizes():
    return [
        line(f"data.batch_size={size}", policy, accuracy=size / 100)
        for size in (32, 8, 2)
        for policy in ("freeze", "retrain")
    ]


def test_a_number_that_varies_is_the_axis_and_each_policy_a_curve(sizes):
    key, found = curves(sizes)
    assert key == "data.batch_size"
    assert [curve.name for curve in found] == ["freeze", "retrain"]
    for curve in found:
        assert [(value, line.mean) for value, line in curve.points] == [
            (2.0, pytest.approx(0.02)),
            (8.0, pytest.approx(0.08)),
            (32.0, pytest.approx(0.32)),
        ]


def test_what_else_varies_tells_curves_apart():
    lines = [
        line("", "retrain", f"batchnorm.momentum={momentum} batchnorm.finish={finish}")
        for momentum in (0.1, 0.9, 0.99)
        for finish in ("none", "recalibrate")
    ]
    key, found = curves([*lines, line("", "freeze")])
    assert key == "batchnorm.momentum"
    assert [curve.name for curve in found] == ["retrain finish=none", "retrain finish=recalibrate"]


def test_words_and_few_values_make_no_curve(sizes):
    assert curves(sizes[:4]) is None
    assert curves([line(f"data.shift.kind={kind}", "freeze") for kind in ("fog", "blur", "noise")]) is None
    assert curves([line("", "freeze")]) is None


def test_the_figure_names_axis_values_and_curves_and_leaves_out_what_failed_everywhere(sizes):
    failed = Line(Arm("data.batch_size=2", "affine"), None, {}, {}, ("diverged",), 1.0)
    drawing = drawn(*curves([*sizes, failed]), "test accuracy")
    for text in ("data.batch_size", "test accuracy", "freeze", "retrain", ">2<", ">8<", ">32<"):
        assert text in drawing
