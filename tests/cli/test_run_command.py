"""`finetune run` and `evaluate` hand on what was typed and show what came out. The run itself is made up."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from finetune.cli.summary import summary
from tests.sample_result import sample_result

RECIPES = Path(__file__).parents[2] / "recipes"
GOOD = RECIPES / "resnet_freeze.yaml"


@pytest.fixture
def asked(monkeypatch):
    """What the run was asked for."""
    asked = {}

    def run(recipe, **given):
        asked.update(given, recipe=recipe)
        given["progress"].phase("training")
        return sample_result(Path("runs/resnet_freeze-1"), shift=0.5)

    monkeypatch.setitem(sys.modules, "finetune.run", SimpleNamespace(run=run))
    return asked


def test_run_hands_on_what_was_typed(finetune, asked):
    typed = [
        "--set",
        "data.batch_size=8",
        "--seed",
        3,
        "--name",
        "123",
        "--runs-dir",
        "there",
        "--tracking-uri",
        "x",
    ]
    assert finetune("run", GOOD, *typed).code == 0
    recipe = asked["recipe"]
    assert (recipe.data.batch_size, recipe.seed, recipe.name) == (8, 3, "123")
    assert (asked["runs_folder"], asked["tracking_uri"]) == (Path("there"), "x")


def test_run_shows_lines_in_a_log_and_nothing_when_quiet(finetune, asked):
    assert finetune("run", GOOD).err.endswith("\ntraining\n")
    assert finetune("run", GOOD, "--quiet").err == ""


def test_workers_that_would_train_apart_are_told_of(finetune, asked, monkeypatch):
    assert "TF_CONFIG" not in finetune("run", GOOD).err
    monkeypatch.setenv(
        "TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}'
    )
    assert "note: TF_CONFIG is set, and the recipe has no distribute" in finetune("run", GOOD).err
    assert finetune("run", GOOD, "--set", "distribute.strategy=multi_worker").err == ""


def test_run_as_json_is_nothing_but_json(finetune, asked):
    result = json.loads(finetune("run", GOOD, "--json").out)
    assert result["verified"] is True
    assert result["folder"] == "runs/resnet_freeze-1"
    assert len(result["sites"]) == 53


def test_a_bad_name_is_refused_before_the_run(finetune, asked):
    answer = finetune("run", GOOD, "--name", "a/b")
    assert answer.code == 2
    assert "name" in answer.err
    assert asked == {}


def test_the_summary_says_what_came_out_and_what_to_type_next(finetune, asked):
    shown = finetune("run", GOOD).out
    for part in (
        "policy  freeze",
        "test    accuracy 0.800, balanced 0.800",
        "proof   ✓ every BN site is reached by an image",
        "53 sites moved by",
        "report  runs/resnet_freeze-1/report.html",
        "model   runs/resnet_freeze-1/model.keras",
        "next    finetune ui",
        "        finetune evaluate runs/resnet_freeze-1",
    ):
        assert part in shown


def test_the_summary_marks_a_check_that_failed():
    result = sample_result(Path("runs/x-1"))
    failed = replace(result, checks=(replace(result.checks[0], passed=False), *result.checks[1:]))
    assert summary(failed).count("✗") == 1


def sites_with(shifts):
    site = sample_result(Path("runs/x-1")).sites[0]
    return tuple(replace(site, shift_mean=shift) for shift in shifts)


def profile(shifts):
    shown = summary(replace(sample_result(Path("runs/x-1")), sites=sites_with(shifts)))
    return next((line.split()[0] for line in shown.splitlines() if line.endswith("by depth")), None)


def test_the_profile_has_a_bar_a_site_and_the_highest_is_the_largest_shift():
    assert profile([0.0, 1.0, 2.0, 7.0]) == "▁▂▃█"


def test_the_profile_of_a_deep_network_keeps_its_largest_shift():
    bars = profile([0.0] * 100 + [5.0] + [0.0] * 21)
    assert len(bars) == 41
    assert bars.count("█") == 1
    assert bars.index("█") == 33


def test_sites_that_did_not_move_have_no_profile():
    assert profile([0.0, 0.0]) is None


def test_a_network_without_sites_says_so():
    assert "no BN sites" in summary(replace(sample_result(Path("runs/x-1")), sites=()))


@pytest.fixture
def measured(monkeypatch):
    """What the evaluation was asked for."""
    measured = {}

    def evaluate_saved(model, **given):
        measured.update(given, model=model)
        return sample_result(Path("runs/x-1")).test

    monkeypatch.setitem(
        sys.modules, "finetune.evaluation_run", SimpleNamespace(evaluate_saved=evaluate_saved)
    )
    return measured


def test_evaluate_hands_on_what_was_typed(finetune, measured):
    finetune("evaluate", "runs/x-1", "--recipe", GOOD, "--set", "data.shift.kind=noise", "--views", "5")
    assert measured == {
        "model": Path("runs/x-1"),
        "recipe": GOOD,
        "overrides": ["data.shift.kind=noise"],
        "views": 5,
    }


def test_evaluate_shows_every_metric_on_one_line(finetune, measured):
    answer = finetune("evaluate", "runs/x-1")
    assert answer.out.startswith(
        "accuracy 0.800, balanced 0.800, cross-entropy 0.637, calibration error 0.031 on "
    )
    assert len(answer.out.splitlines()) == 1


def test_evaluate_as_json_holds_the_confusion_matrix(finetune, measured):
    found = json.loads(finetune("evaluate", "runs/x-1", "--json").out)
    assert sum(map(sum, found["confusion"])) == found["count"]
    assert found["metrics"]["accuracy"] == pytest.approx(0.8, abs=1e-3)
