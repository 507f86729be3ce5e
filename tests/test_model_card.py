"""The model card says what the run found out, and no name can break out of its place in it."""

import dataclasses
from pathlib import Path

import yaml

from finetune.report.card import card, weakest, write_card
from finetune.result import Check, Evaluation
from tests.sample_result import sample_result

RUDE = ("a|b", "<script>alert(1)</script>", "new\nline", "# heading", "[x](y)")


def rows(text: str, title: str) -> list[list[str]]:
    """The cells of the tables under a heading."""
    lines = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0].splitlines()
    cells = [line.replace("\\|", "PIPE").strip("|").split("|") for line in lines if line.startswith("|")]
    return [[cell.strip().replace("PIPE", "|") for cell in row] for row in cells]


def test_it_has_every_measure_every_check_and_every_split():
    result = sample_result(Path("run"), policy="recalibrate", shift=0.5)
    text = card(result)
    header = yaml.safe_load(text.split("---\n")[1])
    assert header["tags"] == ["batch-normalization", "bn-policy-recalibrate"]
    reached = rows(text, "What it reaches")
    assert [row[0] for row in reached[2:9]] == [name.replace("_", " ") for name in result.test.metrics]
    assert float(reached[2][1]) == round(result.test.metrics["accuracy"], 4)
    assert [row[0] for row in rows(text, "BatchNorm")[2:]] == [check.name for check in result.checks]
    made = {row[0]: row[1] for row in rows(text, "Made from")}
    assert made["seed"] == "0"
    assert {"train", "validation", "test", "calibration", "versions"} <= set(made)


def test_a_check_that_failed_is_seen():
    broken = Check("running statistics are fixed", False, "2 of 106 arrays moved")
    text = card(sample_result(Path("run"), checks=(broken,)))
    assert ["running statistics are fixed", "**NO**", "2 of 106 arrays moved"] in rows(text, "BatchNorm")


def test_the_weakest_classes_come_from_the_confusion():
    names = ("a", "b", "c", "d")
    confusion = ((8, 2, 0, 0), (0, 5, 5, 0), (0, 0, 10, 0), (0, 0, 0, 0))
    result = dataclasses.replace(
        sample_result(Path("run"), class_names=names), test=Evaluation({"accuracy": 23 / 30}, confusion, 30)
    )
    assert [(row.name, row.recall, row.images, row.taken_for) for row in weakest(result)] == [
        ("b", 0.5, 10, "c"),
        ("a", 0.8, 10, "b"),
    ]
    assert "The test images have none of: d. Nothing is known about them." in card(result)


def test_names_cannot_break_out_of_their_place():
    text = card(sample_result(Path("run"), class_names=RUDE))
    assert "<script" not in text
    assert "\n# heading" not in text
    assert "[x](y)" not in text
    # all cells of a row are still there
    assert {len(row) for row in rows(text, "What it reaches")[9:]} == {4}


def test_without_a_site_it_promises_nothing_about_statistics():
    text = card(sample_result(Path("run"), sites=0))
    assert "The network has no BN site." in text
    assert "reference_statistics" not in text


def test_it_is_written_whole(tmp_path):
    write_card(sample_result(tmp_path), tmp_path / "model_card.md")
    assert [path.name for path in tmp_path.iterdir()] == ["model_card.md"]
