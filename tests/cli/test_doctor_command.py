"""`finetune doctor` hands on what was typed and shows what came out. The examination itself is made up."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from finetune.batchnorm.moments import RunningStatistics
from finetune.batchnorm.shift import shift


@pytest.fixture
def asked(monkeypatch):
    """What the examination was asked for; a model is serious where its name says so."""
    from finetune.doctor.diagnosis import Diagnosis
    from finetune.doctor.facts import SiteFacts
    from finetune.doctor.finding import Finding
    from finetune.doctor.mode_gap import ModeGap

    asked = {}
    stored = RunningStatistics(np.zeros(2), np.ones(2))
    facts = tuple(SiteFacts(f"net/bn_{n}", 2, 1e-3, 1, stored, "float32", 0.9, n == 1, 4) for n in (1, 2))

    def doctor(subject, source, settings, plan, progress, tensorboard, store):
        asked.update(subject=subject, source=source, settings=settings, plan=plan, tensorboard=tensorboard)
        asked["store"] = store
        progress.phase("looking")
        serious = "broken" in subject
        findings = (Finding("kind", "serious", "it is <off>", "it matters", "do this", ("net/bn_1",)),)
        moved = shift(stored, RunningStatistics(np.ones(2), np.ones(2)), 1e-3)
        return Diagnosis(
            subject,
            "a make",
            findings if serious else (),
            facts,
            64 if source else 0,
            {"net/bn_1": moved, "net/bn_2": moved} if source else {},
            ModeGap(64, 0.5, None, 0.75, 0.01) if source else None,
        )

    monkeypatch.setattr("finetune.cli.doctoring.import_quietly", lambda: None)
    monkeypatch.setitem(sys.modules, "finetune.doctor_run", SimpleNamespace(doctor=doctor))
    return asked


def test_doctor_hands_on_what_was_typed(finetune, asked):
    typed = ["--images", "today", "--labelled", "--samples", 99, "--seed", 3, "--scale", "unit"]
    more = [
        "--reference-images",
        "train",
        "--steps",
        145,
        "--batch-size",
        4,
        "--trust",
        "--tensorboard",
        "tb",
    ]
    assert finetune("doctor", "model.keras", *typed, *more, "--tracking-uri", "http://host:5000").code == 0
    settings, plan = asked["settings"], asked["plan"]
    assert asked["store"] == "http://host:5000"
    assert (asked["subject"], asked["source"].folder) == ("model.keras", Path("today"))
    assert (settings.labelled, settings.samples, settings.seed, settings.trust) == (True, 99, 3, True)
    assert settings.told["scale"] == "unit"
    assert settings.reference_images == Path("train")
    assert (plan.steps, plan.batch_size, asked["tensorboard"]) == (145, 4, Path("tb"))


def test_nothing_found_is_said_and_is_no_error(finetune, asked):
    answer = finetune("doctor", "model.keras")
    assert answer.code == 0
    assert answer.out == "model.keras: a make, 2 BN sites\n\nnothing found\n"
    assert answer.err.endswith("looking\n")


def test_a_serious_finding_has_three_lines_and_exit_code_1(finetune, asked):
    answer = finetune("doctor", "broken.keras", "--quiet")
    assert answer.code == 1
    assert answer.out.splitlines()[2:] == [
        "✗ serious   it is <off>",
        "  why       it matters",
        "  do        do this",
        "",
        "1 serious",
    ]
    assert answer.err == ""


def test_images_add_shift_and_accuracy_and_sites_the_inventory(finetune, asked):
    lines = finetune("doctor", "model.keras", "--images", "today", "--sites", "-q").out.splitlines()
    assert "shift       1.000 sd on average over 64 images" in lines
    assert "accuracy    stored 0.500, freshly measured 0.750" in lines
    assert lines[-2].split() == ["net/bn_1", "2", "0.9", "0.001", "follows", "4", "1.000"]
    assert lines[-1].split() == ["net/bn_2", "2", "0.9", "0.001", "frozen", "4", "1.000"]


def test_json_is_nothing_but_json(finetune, asked):
    answer = finetune("doctor", "broken.keras", "--json", "-q")
    found = json.loads(answer.out)
    assert (answer.code, found["serious"], found["findings"][0]["sites"]) == (1, True, ["net/bn_1"])
    assert [site["path"] for site in found["sites"]] == ["net/bn_1", "net/bn_2"]


def test_the_page_is_written_and_escapes(finetune, asked, tmp_path):
    finetune("doctor", "broken.keras", "--html", tmp_path / "doctor.html")
    assert "it is &lt;off&gt;" in (tmp_path / "doctor.html").read_text()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--labelled"], "--labelled: expected images with it"),
        (["--images", "a", "--tfds", "b:c"], "expected one of --images DIR"),
        (["--html", "missing/there.html"], "--html missing/there.html: cannot be written: No such file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(finetune, asked, typed, said):
    answer = finetune("doctor", "model.keras", "-q", *typed)
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1
