"""`finetune recalibrate`, `drift`, `history`, `rollback` hand on what was typed and show what came out."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from finetune.batchnorm.moments import RunningStatistics
from finetune.batchnorm.shift import shift
from finetune.errors import GateError
from finetune.recalibration.publish import publish
from finetune.result import Check
from tests.recalibration.places import recorded, saved_model

SHIFTS = {
    f"net/bn_{number}": shift(RunningStatistics([0.0], [1.0]), RunningStatistics([moved], [1.0]), 1e-3)
    for number, moved in ((1, 0.2), (2, 1.0))
}


@pytest.fixture
def asked(monkeypatch):
    """What the stories were asked for; they are made up."""
    asked = {}

    def recalibrate(model, source, out, settings, **given):
        asked.update(given, model=model, source=source, out=out, settings=settings)
        given["progress"].phase("measuring")
        if settings.samples == 1:
            raise GateError("models/shirts: not published: enough images: 1; at least 32 expected")
        return SimpleNamespace(
            address=model,
            format="SavedModel",
            version=None if given["dry"] else Path("models/shirts/2"),
            measurement=MEASURED,
            verdict=SimpleNamespace(checks=(Check("residual", True, "0"),), passed=True, scores={}),
            forced=False,
            shifts=SHIFTS,
            notes=("said",),
            bytes_changed=512,
        )

    def drift(model, source, settings, progress):
        asked.update(model=model, source=source, settings=settings)
        return SimpleNamespace(
            address=model, images=99, against="reference", shifts=SHIFTS, overall=0.6, worst="net/bn_2"
        )

    monkeypatch.setitem(sys.modules, "finetune.recalibration_run", SimpleNamespace(recalibrate=recalibrate))
    monkeypatch.setitem(sys.modules, "finetune.drift_run", SimpleNamespace(drift=drift))
    return asked


def measured():
    from finetune.batchnorm.measure import Measurement

    return Measurement(512, 3e-7, 16.0, "layerwise", "matched")


MEASURED = measured()


def test_recalibrate_hands_on_what_was_typed(finetune, asked):
    typed = ["--images", "today", "--out", "there", "--method", "one_pass", "--samples", 64, "--prior", 16]
    more = ["--memory", "500MB", "--labelled", "--tolerance", 0.02, "--force", "why not", "--plain"]
    foreign = [
        "--scale",
        "imagenet",
        "--image-size",
        96,
        "--channel-order",
        "bgr",
        "--layout",
        "nchw",
        "--trust",
        "--twin",
        "export",
        "--class-shares",
        "3,1",
    ]
    assert finetune("recalibrate", "models/shirts", *typed, *more, *foreign, "--dry-run").code == 0
    settings = asked["settings"]
    assert (asked["model"], asked["source"].folder, asked["out"]) == (
        "models/shirts",
        Path("today"),
        Path("there"),
    )
    assert (settings.method, settings.samples, settings.prior, settings.memory) == (
        "one_pass",
        64,
        16,
        500_000_000,
    )
    assert (settings.labelled, settings.tolerance, settings.force) == (True, 0.02, "why not")
    assert (settings.statistics, settings.trust, asked["dry"]) == ("plain", True, True)
    assert (settings.twin, settings.class_shares) == (Path("export"), (0.75, 0.25))
    assert settings.told == {"image_size": 96, "scale": "imagenet", "order": "bgr", "layout": "nchw"}


def test_recalibrate_shows_what_came_of_it_and_what_to_type_next(finetune, asked):
    shown = finetune("recalibrate", "models/shirts", "--images", "today").out
    assert "matched statistics of 512 images, layerwise, prior 16" in shown
    assert "2 sites moved by" in shown
    assert "most net/bn_2 by" in shown
    assert "models/shirts/2, 512 bytes differ from its parent" in shown
    assert "finetune rollback models/shirts" in shown


def test_recalibrate_as_json_is_nothing_but_json(finetune, asked):
    result = json.loads(finetune("recalibrate", "models/shirts", "--images", "today", "--json").out)
    assert result["version"] == "models/shirts/2"
    assert result["passed"] is True
    assert list(result["shifts"]) == list(SHIFTS)


def test_a_refusal_has_its_own_exit_code_and_one_line(finetune, asked):
    answer = finetune("recalibrate", "models/shirts", "--images", "today", "--samples", 1, "--quiet")
    assert answer.code == 4
    assert answer.err == "error: models/shirts: not published: enough images: 1; at least 32 expected\n"


@pytest.mark.parametrize("command", ["recalibrate", "drift"])
@pytest.mark.parametrize("given", [[], ["--images", "a", "--tfds", "b:test"]])
def test_images_come_from_one_place(finetune, asked, command, given):
    answer = finetune(command, "models/shirts", *given)
    assert answer.code == 2
    assert "expected one of --images DIR, --recipe RECIPE and --tfds NAME:SPLIT" in answer.err
    assert "model" not in asked


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--method", "onepass"], "--method: expected layerwise or one_pass, got 'onepass'"),
        (["--memory", "much"], "--memory: expected a size, as in 2GB, got 'much'"),
        (["--samples", "0"], "samples: expected 1 or more, found 0"),
        (["--force", " "], "force: expected the reason why the gate is passed over"),
    ],
)
def test_a_wrong_value_is_one_line(finetune, asked, typed, said):
    answer = finetune("recalibrate", "models/shirts", "--images", "today", "--quiet", *typed)
    assert answer.code == 2
    assert said in answer.err
    assert "Traceback" not in answer.err


def test_drift_above_the_threshold_has_its_own_exit_code(finetune, asked):
    calm = finetune("drift", "models/shirts", "--images", "today", "--threshold", 0.7)
    moved = finetune("drift", "models/shirts", "--images", "today", "--threshold", 0.5)
    assert (calm.code, moved.code) == (0, 3)
    assert "0.600 sd, threshold 0.5" in moved.out
    assert "99 images, against its reference statistics" in moved.out


def test_drift_as_json_says_whether_it_is_above(finetune, asked):
    answer = finetune("drift", "models/shirts", "--images", "today", "--threshold", 0.5, "--json")
    result = json.loads(answer.out)
    assert (result["above"], result["worst"], answer.code) == (True, "net/bn_2", 3)


def test_history_and_rollback_of_a_folder_of_versions(finetune, tmp_path):
    place = tmp_path / "shirts"
    publish(saved_model(1), place)
    publish(recorded(2, made_from=1), place)
    lines = finetune("history", place).out.splitlines()
    assert lines[0].startswith("   2 ")
    assert lines[0].endswith("(served)")
    assert lines[1] == "   1  no record of where it came from"
    assert finetune("rollback", place, "--reason", "worse").code == 0
    rows = json.loads(finetune("history", place, "--json").out)
    assert [row["version"] for row in rows] == [3, 2, 1]
    assert rows[0]["lineage"]["reason"] == "worse"


def test_a_folder_without_versions_has_no_history(finetune, tmp_path):
    answer = finetune("history", tmp_path)
    assert answer.code == 2
    assert "expected a folder with numbered versions" in answer.err
