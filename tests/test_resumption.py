"""A run that is broken off and gone on with ends bit by bit as it would have without the break."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from mlflow import MlflowClient

from finetune import checkpoint, pace
from finetune.errors import InputError, Interrupted
from finetune.progress import Progress
from finetune.recipe_file import load_text
from finetune.resumption import resume
from finetune.run import run
from finetune.run_state import held, resumable_state
from tests.nets import tiny_backbone

RECIPE = """
name: small
seed: 1
backbone: {{source: saved, path: {folder}/backbone.keras}}
head: {{dropout: 0.2}}
data:
  source: tfds
  name: fashion_shift
  train: "train[:96]"
  validation: "validation[:48]"
  test: "test[:60]"
  calibration: "calibration[:64]"
  image_size: 12
  batch_size: 32
batchnorm: {policy}
stages: {stages}
tracking: {{uri: "sqlite:///{folder}/mlflow.db", experiment: {experiment}, register: {experiment}}}
"""
STAGES = {
    # features kept, then batches that the stages share
    "two": "[{train: head, epochs: 2, learning_rate: 0.1}, {train: everything, epochs: 3, learning_rate: 0.005}]",
    # shared batches in both stages; the best epoch is not the last
    "shared": "[{train: everything, epochs: 2, learning_rate: 0.005},"
    " {train: everything, epochs: 3, learning_rate: 0.05, optimizer: adam, schedule: constant}]",
    # three legs, and an average of the weights
    "legs": "[{train: everything, epochs: 4, learning_rate: 0.005, batch_size: [16, 32, 32, 48], ema: 0.9}]",
    # it stops by itself after two epochs
    "early": "[{train: everything, epochs: 9, learning_rate: 5.0, warmup: 0, schedule: constant, early_stopping: 1}]",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resumed")
    tiny_backbone().save(folder / "backbone.keras")
    return folder


def text_of(place, stages, policy="{policy: retrain}", experiment="resumed"):
    return RECIPE.format(folder=place, policy=policy, stages=STAGES[stages], experiment=experiment)


class BrokenOff(Progress):
    """What ends a run at once: in the step (from 1) that comes when so many epochs are over, counted over all stages,
    or when a phase begins."""

    def __init__(self, after=None, step=1, phase=None):
        self.after, self.step, self.at, self.done = after, step, phase, 0

    def batch(self, step, loss, accuracy):
        if (self.done, step) == (self.after, self.step):
            self.end()

    def end(self):
        raise KeyboardInterrupt

    def epoch(self, epoch, metrics):
        self.done += 1

    def phase(self, words):
        if self.at and words.startswith(self.at):
            raise KeyboardInterrupt


class Asked(BrokenOff):
    """A person who presses Ctrl-C once, or a batch queue."""

    def end(self):
        signal.raise_signal(signal.SIGINT)


def broken_off(place, text, by=BrokenOff, **at):
    with pytest.raises(
        Interrupted, match=r"^interrupted; go on with: finetune run --resume .*small-\d+$"
    ) as stopped:
        run(load_text(text), runs_folder=place / "runs", progress=by(**at))
    return Path(str(stopped.value).split()[-1])


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


@pytest.fixture(scope="module")
def stopped(place):
    """The folder of a run that was broken off in its third epoch, and its newest checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        # a small network is slow to write beside what its epochs take
        patch.setattr(pace, "REST", 0.0)
        folder = broken_off(place, text_of(place, "two"), after=2)
    files = sorted((folder / checkpoint.FOLDER).iterdir())
    assert [file.name for file in files] == ["000001-00000000.npz", "000002-00000000.npz"]
    return folder, files[-1]


def test_a_damaged_checkpoint_is_recognised_and_the_one_before_it_is_used(stopped):
    folder, newest = stopped
    whole, before = newest.read_bytes(), checkpoint.latest(folder)
    random = np.random.default_rng(0)
    used = []
    try:
        for _ in range(150):
            torn = bytearray(whole)
            if random.random() < 0.3:
                del torn[int(random.integers(len(torn))) :]
            else:
                torn[int(random.integers(len(torn)))] ^= int(random.integers(1, 256))
            newest.write_bytes(torn)
            found = checkpoint.latest(folder)
            used.append(len(found.epochs))
            if used[-1] == 2:
                # a byte of the archive's own bookkeeping that nothing depends on
                for a, b in zip(found.model, before.model, strict=True):
                    np.testing.assert_array_equal(a, b)
    finally:
        newest.write_bytes(whole)
    assert used.count(1) > 100


def test_what_is_damaged_does_not_stand_in_front_of_what_is_written_after_it(stopped, tmp_path):
    folder, newest = stopped
    shutil.copytree(folder / checkpoint.FOLDER, tmp_path / checkpoint.FOLDER)
    (tmp_path / checkpoint.FOLDER / newest.name).write_bytes(b"torn")
    found = checkpoint.latest(tmp_path)
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, replace(found, standing=replace(found.standing, step=step)))
        assert checkpoint.latest(tmp_path).standing.step == step
    names = sorted(file.name for file in (tmp_path / checkpoint.FOLDER).iterdir())
    assert names == ["000001-00000002.npz", "000001-00000003.npz"]


def test_another_process_at_work_is_named(stopped):
    folder, _ = stopped
    held_there = (
        "from pathlib import Path\n"
        "from finetune.run_state import held\n"
        f"with held(Path({str(folder)!r})): input()"
    )
    child = subprocess.Popen([sys.executable, "-c", held_there], stdin=subprocess.PIPE)
    try:
        while not (folder / "run.lock").exists():
            assert child.poll() is None
        with pytest.raises(
            InputError, match=rf"process {child.pid} on .* is at work there; wait for it, or stop it$"
        ):
            resume(folder)
    finally:
        child.communicate(b"\n")
    with held(folder):
        pass


def test_other_data_are_refused(stopped):
    folder, _ = stopped
    state = (folder / "run.json").read_text()
    (folder / "run.json").write_text(state.replace('"data": "', '"data": "0'))
    try:
        with pytest.raises(InputError, match="the data are not those that the run began with"):
            resume(folder)
    finally:
        (folder / "run.json").write_text(state)


def test_a_checkpoint_of_another_network_is_refused(stopped, monkeypatch):
    folder, _ = stopped
    found = checkpoint.latest(folder)
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    model.compile("sgd")
    with pytest.raises(
        InputError, match=r"^the checkpoint does not fit the model that the recipe makes here"
    ):
        checkpoint.put_back(found, model)


@pytest.mark.parametrize("text", ["", "[]", '{"status": "begun"}', '{"unknown": 1}'])
def test_a_folder_that_holds_no_run_is_refused(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(
        InputError, match=r"no run there: run\.json is missing or damaged; expected the folder"
    ):
        resumable_state(tmp_path)


def test_a_run_that_diverged_is_not_gone_on_with(place):
    text = text_of(place, "early").replace("learning_rate: 5.0", "learning_rate: 1.0e+9")
    with pytest.raises(Exception, match="last good weights are in") as diverged:
        run(load_text(text), runs_folder=place / "runs")
    folder = Path(str(diverged.value).split()[-1]).parent
    with pytest.raises(InputError, match=r"this run failed, and would again: stage 1 of 1.*: the loss"):
        resume(folder)
    assert not list(folder.glob("checkpoints*"))


def test_a_password_that_is_not_kept_must_be_said_again(place, stopped):
    folder, _ = stopped
    recipe = (folder / "recipe.yaml").read_text()
    uri = f"sqlite:///{place}/mlflow.db"
    (folder / "recipe.yaml").write_text(recipe.replace(uri, "http://me:***@host"))
    try:
        with pytest.raises(InputError, match=r"say the whole http://me:\*\*\*@host with --tracking-uri$"):
            resume(folder)
    finally:
        (folder / "recipe.yaml").write_text(recipe)


def test_a_batch_queue_ends_it_and_the_printed_line_goes_on(place, whole, tmp_path):
    """SIGTERM while it trains, over the command line."""
    text = text_of(place, "two", "{policy: recalibrate}")
    (tmp_path / "small.yaml").write_text(text)
    command = [sys.executable, "-m", "finetune", "run"]
    begun = subprocess.Popen(
        [*command, "small.yaml"], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    for line in begun.stderr:
        if line.startswith("  epoch 1/3"):
            break
    begun.send_signal(signal.SIGTERM)
    _, said = begun.communicate()
    assert begun.returncode == 130
    assert said.splitlines()[-1] == "interrupted; go on with: finetune run --resume runs/small-1"
    gone_on = subprocess.run(
        [*command, "--resume", "runs/small-1", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    found, expected = json.loads(gone_on.stdout), whole(text)
    assert found["test"]["metrics"] == dict(expected.test.metrics)
    assert (tmp_path / "runs/small-1/metrics.jsonl").read_text() == (
        expected.folder / "metrics.jsonl"
    ).read_text()
