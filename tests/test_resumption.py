"""A run that is broken off and gone on with ends bit by bit as it would have without the break."""

import json
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from mlflow import MlflowClient

from finetune import checkpoint, pace
from finetune.cli import main
from finetune.errors import InputError, Interrupted
from finetune.recipe_file import load_text
from finetune.resumption import resume
from finetune.run import run
from finetune.run_state import resumable_state
from tests.broken_off import Asked, BrokenOff, broken_off, text_of
from tests.nets import tiny_backbone


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resumed")
    tiny_backbone().save(folder / "backbone.keras")
    return folder


def assert_same(one, other):
    """Weights, metrics, moments, records: all but the seconds."""
    first, second = (
        keras.saving.load_model(each.folder / "model.keras").get_weights() for each in (one, other)
    )
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    with (
        np.load(one.folder / "reference_statistics.npz") as a,
        np.load(other.folder / "reference_statistics.npz") as b,
    ):
        assert a.files == b.files
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name])
    assert one.epochs == other.epochs
    assert one.test == other.test
    assert one.checks == other.checks
    assert one.sites == other.sites
    assert (one.folder / "metrics.jsonl").read_text() == (other.folder / "metrics.jsonl").read_text()


RETRAIN_AND_FREEZE = "{policy: retrain, finish: recalibrate, freeze_last_epochs: 1}"


@pytest.fixture(scope="module")
def whole(place):
    """Runs without a break, by recipe."""
    known = {}

    def of(text):
        if text not in known:
            known[text] = run(load_text(text), runs_folder=place / "runs")
        return known[text]

    return of


@pytest.mark.parametrize(
    ("stages", "policy", "after"),
    [
        ("shared", "{policy: retrain}", 3),
        ("shared", "{policy: retrain}", 5),
        ("legs", RETRAIN_AND_FREEZE, 3),
    ],
)
def test_ended_at_once_in_any_epoch_it_ends_bit_by_bit_the_same(place, whole, stages, policy, after):
    text = text_of(place, stages, policy)
    folder = broken_off(place, text, after=after) if after < 5 else broken_off(place, text, phase="proving")
    assert_same(resume(folder), whole(text))


@pytest.mark.parametrize(
    ("stages", "policy", "epoch", "step"),
    [
        # on features that were kept
        ("two", "{policy: recalibrate}", 1, 2),
        # all batches were trained on, the validation has not begun
        ("shared", "{policy: retrain}", 3, 3),
        # in the first epoch of another batch size
        ("legs", RETRAIN_AND_FREEZE, 1, 1),
    ],
)
def test_asked_to_end_in_any_step_it_ends_bit_by_bit_the_same(place, whole, stages, policy, epoch, step):
    text = text_of(place, stages, policy)
    folder = broken_off(place, text, Asked, after=epoch, step=step)
    kept = checkpoint.latest(folder)
    assert (len(kept.epochs), kept.standing.step) == (epoch, step)
    assert_same(resume(folder), whole(text))


def test_killed_in_an_epoch_it_loses_what_came_after_the_last_checkpoint_only(place, whole, monkeypatch):
    monkeypatch.setattr(pace, "REST", 0.0)
    text = text_of(place, "two", "{policy: recalibrate}")
    often = text.replace("tracking:", "checkpoint: {minutes: 1.0e-9}\ntracking:")
    folder = broken_off(place, often, after=3, step=3)
    kept = checkpoint.latest(folder)
    assert (len(kept.epochs), kept.standing.step) == (3, 2)
    assert_same(resume(folder), whole(text))


def test_the_dropout_draws_on_where_it_was(place):
    """The law above would hold without it if nothing were drawn."""
    recipe = load_text(text_of(place, "two", "{policy: recalibrate}"))
    assert recipe.head.dropout == 0.2


def test_nothing_is_left_of_the_checkpoints_when_all_is_done(whole, place):
    finished = whole(text_of(place, "two", "{policy: recalibrate}"))
    assert not list(finished.folder.glob("checkpoints*"))
    assert not (finished.folder / "run.lock").exists()
    with pytest.raises(InputError, match=r"this run is finished; what it found out is in .*report\.html$"):
        resume(finished.folder)


def test_mlflow_has_one_run_in_which_nothing_stands_twice(place):
    """Broken off three times: in an epoch, when the policy is proven, and when all has been logged but not ended."""
    text = text_of(place, "two", experiment="once")
    folder = broken_off(place, text, after=1)
    with pytest.raises(Interrupted):
        resume(folder, progress=BrokenOff(phase="proving"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("finetune.tracking.run.Tracker.end", interrupted)
        with pytest.raises(Interrupted):
            resume(folder)
    finished = resume(folder)
    straight = run(load_text(text), runs_folder=place / "runs")
    client = MlflowClient(f"sqlite:///{place}/mlflow.db")
    experiment = client.get_experiment_by_name("once").experiment_id
    mine, other = (
        one
        for folder in (finished.folder, straight.folder)
        for one in client.search_runs([experiment], f"tags.run_folder = '{folder.name}'")
    )
    assert mine.info.status == "FINISHED"
    assert mine.data.params == other.data.params
    for name in other.data.metrics:
        if not name.startswith("seconds/"):
            assert points(client, mine, name) == list(dict.fromkeys(points(client, other, name)))
    assert sorted(file.path for file in client.list_artifacts(mine.info.run_id)) == sorted(
        file.path for file in client.list_artifacts(other.info.run_id)
    )
    [model] = client.search_logged_models([experiment], f"source_run_id = '{mine.info.run_id}'")
    versions = client.search_model_versions("name = 'once'")
    assert sorted(version.run_id for version in versions) == sorted([mine.info.run_id, other.info.run_id])
    assert f"models:/{model.model_id}" in {version.source for version in versions}
    assert len(mine.inputs.dataset_inputs) == len(other.inputs.dataset_inputs) == 4


def test_a_run_that_was_killed_before_it_knew_its_mlflow_run_finds_it_again(place):
    text = text_of(place, "early", "{policy: freeze}", experiment="orphan")
    with pytest.MonkeyPatch.context() as patch:
        # MLflow has made the run by then
        patch.setattr("finetune.tracking.run.flat_params", interrupted)
        folder = broken_off(place, text)
    assert resumable_state(folder).mlflow_run == ""
    # of an epoch after which it was killed before there was a checkpoint
    (folder / "metrics.jsonl").write_text('{"stage": 1, "epoch": 1, "step": 1}\n')
    finished = resume(folder)
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == len(finished.epochs)
    client = MlflowClient(f"sqlite:///{place}/mlflow.db")
    experiment = client.get_experiment_by_name("orphan").experiment_id
    [only] = client.search_runs([experiment])
    assert only.info.status == "FINISHED"
    assert only.data.tags["run_folder"] == folder.name


def interrupted(*arguments):
    raise KeyboardInterrupt


def points(client, run, name):
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]


def test_a_batch_queue_ends_it_and_the_printed_line_goes_on(place, whole, tmp_path, monkeypatch, capsys):
    """SIGTERM while it trains in a process of its own; both over the command line."""
    text = text_of(place, "two", "{policy: recalibrate}")
    (tmp_path / "small.yaml").write_text(text)
    command = [sys.executable, "-m", "finetune", "run", "small.yaml"]
    begun = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for line in begun.stderr:
        if line.startswith("  epoch 1/3"):
            break
    begun.send_signal(signal.SIGTERM)
    _, said = begun.communicate()
    assert begun.returncode == 130
    assert said.splitlines()[-1] == "interrupted; go on with: finetune run --resume runs/small-1"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["finetune", "run", "--resume", "runs/small-1", "--json"])
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code
    found, expected = json.loads(capsys.readouterr().out), whole(text)
    assert found["test"]["metrics"] == dict(expected.test.metrics)
    assert (tmp_path / "runs/small-1/metrics.jsonl").read_text() == (
        expected.folder / "metrics.jsonl"
    ).read_text()
