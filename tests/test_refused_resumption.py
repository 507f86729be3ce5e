"""What of a run that was broken off is damaged is recognised, and what cannot be gone on with is refused in a line."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from finetune import checkpoint, pace
from finetune.errors import InputError
from finetune.recipe_file import load_text
from finetune.resumption import resume
from finetune.run import run
from finetune.run_state import held, resumable_state
from tests.broken_off import broken_off, text_of
from tests.nets import tiny_backbone


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resumed")
    tiny_backbone().save(folder / "backbone.keras")
    return folder


@pytest.fixture(scope="module")
def stopped(place):
    """The folder of a run that was broken off in its third epoch, and its newest checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        # a small network is slow to write beside what its epochs take
        patch.setattr(pace, "REST", 0.0)
        folder = broken_off(place, text_of(place, "two", experiment="refused"), after=2)
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
