"""The tables of what measured statistics do to a network that nobody trains; nothing is timed."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.scripts.test_measure_formats import SIDE, small_network, trained_head


@pytest.fixture
def script(monkeypatch):
    """The script on a small network, as a module."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "scripts"))
    import measure_adaptation
    import trained_formats

    monkeypatch.setattr(trained_formats, "SIDE", SIDE)
    images = measure_adaptation.pictures(range(500), None)
    net = trained_head(small_network(), images, measure_adaptation.read_test_images()[1][:500])
    monkeypatch.setattr(trained_formats, "trained_network", lambda: net)
    monkeypatch.setattr(measure_adaptation, "COUNTS", (8, 300))
    monkeypatch.setattr(measure_adaptation, "PRIORS", (0, 10**12))
    monkeypatch.setattr(measure_adaptation, "BATCHES", (50, 200))
    return measure_adaptation


def run(script, monkeypatch, capsys, *typed):
    options = ["--cameras", "contrast", "--draws", "2", "--tests", "200", *typed]
    monkeypatch.setattr(sys, "argv", ["measure_adaptation.py", *options])
    script.main()
    return capsys.readouterr().out


def test_a_prior_of_a_billion_images_changes_nothing_and_none_repairs_contrast(script, monkeypatch, capsys):
    found = json.loads(run(script, monkeypatch, capsys, "--json"))["contrast"]
    (as_trained,) = found["as trained"][""]
    images, batches = found["images"], found["batches"]
    assert images[f"{10**12} 8"] == images[f"{10**12} 300"] == [as_trained] * 2
    assert min(images["0 300"]) > as_trained
    # one batch of all images: no draw can change what is in it
    assert np.ptp(batches["200"]) == 0
    assert min(batches["200"]) > as_trained
    assert len(batches["50"]) == 2


def test_the_figures_and_tables_have_every_setting(script, monkeypatch, capsys, tmp_path):
    printed = run(script, monkeypatch, capsys, "--figures", str(tmp_path))
    assert {file.name for file in tmp_path.iterdir()} == {"adaptation_images.svg", "adaptation_batches.svg"}
    assert "contrast, N0 = 0 |" in printed
    assert "| batch size | as trained | 50 | 200 |" in printed


def test_every_camera_has_a_row_of_severities_before_and_after(script, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(script, "SEVERITIES", (1, 5))
    monkeypatch.setattr(script, "get_args", lambda kinds: ("contrast",))
    found = json.loads(run(script, monkeypatch, capsys, "--severities", "--json"))
    (little, little_after), (much, much_after) = found["contrast"]
    assert much < little
    assert min(little_after, much_after) > much
    printed = run(script, monkeypatch, capsys, "--severities", "--figures", str(tmp_path))
    assert f"| contrast | {little:.3f} → {little_after:.3f} | {much:.3f} → {much_after:.3f} |" in printed
    assert [file.name for file in tmp_path.iterdir()] == ["adaptation_severities.svg"]
