"""`finetune compare` hands on what was typed and shows what came out. The comparison itself is made up."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from finetune.comparison.comparison import summed_up
from finetune.comparison.outcome import Outcome

RECIPE = Path(__file__).parents[2] / "recipes" / "resnet_freeze.yaml"


@pytest.fixture
def asked(monkeypatch):
    """What the comparison was asked for."""
    asked = {}

    def compare(grid, out, **given):
        asked.update(given, grid=grid, out=out)
        given["progress"].phase("training")
        cells = [grid.cell(arm, 0.01, seed) for arm in grid.arms() for seed in range(grid.seeds)]
        found = {
            cell.key: Outcome(
                metrics={"accuracy": 0.8 + 0.05 * (cell.arm.policy == "retrain") + 0.01 * cell.seed},
                validation_accuracy=0.8,
                seconds=12.0,
            )
            for cell in cells
        }
        found[cells[0].key] = Outcome(failed="diverged at step 3", seconds=2.0)
        comparison = summed_up("resnet_freeze", cells, found)
        return SimpleNamespace(
            comparison=comparison,
            recommended={"": out / "recommended.yaml"},
            page=out / "compare.html",
            seconds=61.2,
            trained=9,
            known=1,
        )

    monkeypatch.setattr("finetune.cli.comparing.import_quietly", lambda: None)
    monkeypatch.setitem(sys.modules, "finetune.compare_run", SimpleNamespace(compare=compare))
    return asked


def test_compare_hands_on_what_was_typed(finetune, asked):
    typed = ["--policies", "freeze,retrain", "--seeds", 3, "--set", "data.batch_size=8,32", "--jobs", 2]
    more = [
        "--metric",
        "balanced_accuracy",
        "--set",
        "data.shift.kind=blur",
        "--learning-rates",
        "0.1,0.2",
        "--tracking-uri",
        "x",
    ]
    assert finetune("compare", RECIPE, *typed, *more).code == 0
    grid = asked["grid"]
    assert (grid.path, grid.policies, grid.seeds, grid.rates) == (
        RECIPE,
        ("freeze", "retrain"),
        3,
        (0.1, 0.2),
    )
    assert (grid.varied, grid.fixed) == (
        (("data.batch_size=8", "data.batch_size=32"),),
        ("data.shift.kind=blur",),
    )
    assert (asked["jobs"], asked["tracking_uri"], asked["metric"]) == (2, "x", "balanced_accuracy")
    assert asked["out"] == Path("comparisons/resnet_freeze")


def test_ray_takes_the_place_of_jobs(finetune, asked):
    assert finetune("compare", RECIPE, "--ray").code == 0
    assert (asked["on_ray"], asked["jobs"]) == (True, 1)


def test_compare_shows_the_table_the_verdict_the_failure_and_what_to_do_next(finetune, asked):
    answer = finetune("compare", RECIPE, "--policies", "freeze,retrain", "--seeds", 4)
    lines = answer.out.splitlines()
    assert lines[0].split() == [
        "policy",
        "rate",
        "test",
        "accuracy",
        "validation",
        "seeds",
        "seconds",
    ]
    assert lines[1].split() == ["freeze", "0.01", "0.820", "±", "0.010", "0.800", "3", "of", "4", "10"]
    assert "retrain beats freeze by 5.0 points, 95 % interval 5.0 to 5.0, 3 seeds" in lines
    assert "failed: freeze, rate 0.01, seed 0: diverged at step 3" in lines
    assert lines[-1] == "next    finetune run comparisons/resnet_freeze/recommended.yaml"
    assert answer.err.endswith("training\n")


def test_compare_as_json_is_nothing_but_json(finetune, asked):
    answer = finetune("compare", RECIPE, "--policies", "freeze,retrain", "--json", "--quiet")
    assert [line["policy"] for line in json.loads(answer.out)["lines"]] == ["freeze", "retrain"]
    assert answer.err == ""


def test_no_learning_rates_leave_the_recipes_own(finetune, asked):
    assert finetune("compare", RECIPE, "--learning-rates", "none").code == 0
    assert asked["grid"].rates == ()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            ["--learning-rates", "a"],
            "--learning-rates: expected numbers between commas, as in 0.003,0.01,0.03",
        ),
        (["--seeds", "0"], "--seeds: expected 1 or more, got 0"),
        (["--policies", "freeze,retrian"], "retrian"),
        (["--ray", "--jobs", "2"], "--jobs 2: leave it out with --ray"),
        (["--set", "data.batch_size=8,"], "--set data.batch_size=8,: expected different values"),
        (["--set", "data.batchsize=8,9"], "batchsize"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(finetune, asked, typed, said):
    answer = finetune("compare", RECIPE, *typed)
    assert answer.code == 2
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert asked == {}
