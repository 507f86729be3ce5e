"""What is stated of runs under JAX; `test_jax_run.py` runs it in a process of its own, with two devices.

A run without `distribute` computes on the first of them.
"""

import json
import os
from pathlib import Path

import jax
import keras
import numpy as np
import pytest

from finetune import checkpoint, save_arrays
from finetune.averaging import put_average
from finetune.batchnorm.sites import find_sites
from finetune.errors import InputError, Interrupted
from finetune.evaluation_run import evaluate_saved
from finetune.policies import Freeze
from finetune.progress import Progress
from finetune.recipe_file import load_text
from finetune.resumption import resume
from finetune.run import run
from tests import nets
from tests.nets import functional_net

FOLDER = Path(os.environ.get("FINETUNE_JAX_RUNS", "."))
RECIPE = """
name: {name}
seed: 1
backbone: {{source: function, name: "tests.nets:without_top", scale: "0..1"}}
head: {{dropout: 0.2}}
data: {{source: arrays, path: {folder}/data.npz, image_size: 12, batch_size: 16}}
batchnorm: {{policy: retrain, finish: none}}
stages:
  - {{train: head, epochs: 1, learning_rate: 0.05}}
  - {{train: everything, epochs: 2, learning_rate: 0.02}}
tracking: {{enabled: false}}
distribute: {distribute}
"""
ALONE, TWO = "null", "{strategy: data_parallel}"


@pytest.fixture(scope="module", autouse=True)
def images():
    """Four splits, none of them of a number that two devices could divide but the training images."""
    random = np.random.default_rng(0)

    def pictures(count):
        labels = np.arange(count) % 3
        noise = random.normal(90, 40, (count, 12, 12, 3))
        return (noise + 40 * labels[:, None, None, None]).clip(0, 255).astype(np.uint8), labels

    train, validation, test, calibration = map(pictures, (64, 33, 31, 47))
    save_arrays(FOLDER / "data.npz", train, validation, test, calibration)
    return test[0]


def recipe(name, distribute=ALONE, *overrides):
    text = RECIPE.format(name=name, folder=FOLDER, distribute=distribute)
    return load_text(text, overrides=overrides)


@pytest.fixture(scope="module")
def one():
    return run(recipe("one"), runs_folder=FOLDER / "runs")


PLACED = []
"""Of each tensor that Keras divided while `two` ran, the images on each device."""


@pytest.fixture(scope="module")
def two():
    from keras.src.backend.jax import distribution_lib

    whole = distribution_lib.distribute_data_input

    def noted(batch, *rest, **options):
        placed = whole(batch, *rest, **options)
        PLACED.append([shard.data.shape[0] for shard in placed.addressable_shards])
        return placed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distribution_lib, "distribute_data_input", noted)
        return run(recipe("two", TWO), runs_folder=FOLDER / "runs")


def test_there_are_two_devices_and_keras_computes_on_jax():
    assert keras.backend.backend() == "jax"
    assert len(jax.devices()) == 2


def test_a_run_is_proven_and_leaves_all_but_a_saved_model(one, images):
    assert one.verified
    assert one.provenance["keras_backend"] == "jax"
    assert one.provenance["versions"]["jax"] == jax.__version__
    assert sorted(p.name for p in one.folder.iterdir()) == [
        "metrics.jsonl", "model.keras", "model_card.md", "provenance.json", "recipe.yaml",
        "reference_statistics.npz", "report.html", "result.json", "run.json",
    ]  # fmt: skip
    [note] = [words for words in one.notes if words.startswith("no saved_model")]
    assert f"KERAS_BACKEND=tensorflow finetune export {one.folder} --savedmodel DIR" in note
    for page in ("report.html", "model_card.md"):
        assert "saved_model/1" not in (one.folder / page).read_text()
    model = keras.saving.load_model(one.folder / "model.keras", compile=False)
    answers = np.asarray(model.predict(images.astype(np.float32), verbose=0))
    np.savez(FOLDER / "answers.npz", images=images.astype(np.float32), probabilities=answers)


def statistics_of(result):
    """Of both sites, in call order; the names that Keras makes up differ from run to run."""
    model = keras.saving.load_model(result.folder / "model.keras", compile=False)
    sites = find_sites(model, np.zeros((1, 12, 12, 3), np.float32))
    assert len(sites) == 2
    return [values for site in sites for values in (site.statistics.mean, site.statistics.variance)]


def test_two_devices_end_as_one_does(one, two):
    """Up to the order in which float32 are added up: each device adds up its half of the batch first."""
    assert two.verified
    for ours, theirs in zip(statistics_of(one), statistics_of(two), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-5)
    for mine, other in zip(one.epochs, two.epochs, strict=True):
        assert mine.metrics == pytest.approx(other.metrics, rel=1e-4, abs=1e-5)
    assert one.test.metrics["cross_entropy"] == pytest.approx(two.test.metrics["cross_entropy"], rel=1e-4)


def test_the_batches_of_a_training_lie_on_both_devices_and_no_others_are_divided(two):
    """Keras asks for the distribution batch by batch, so that validation inside of `fit` can be left undivided."""
    # images and labels of four batches in each of three epochs
    assert PLACED == [[8, 8]] * 2 * 4 * 3


def test_batches_that_the_devices_cannot_divide_are_refused_before_anything_is_written():
    with pytest.raises(InputError, match=r"data\.batch_size: batches of 15 images"):
        run(recipe("uneven", TWO, "data.batch_size=15"), runs_folder=FOLDER / "runs")
    assert not list((FOLDER / "runs").glob("uneven-*"))


def test_devices_that_are_not_there_are_named_with_those_that_are():
    with pytest.raises(InputError, match="GPU:7: not on this machine; found CPU:0, CPU:1"):
        run(recipe("absent", "{strategy: data_parallel, devices: ['GPU:7']}"), runs_folder=FOLDER / "runs")
    with pytest.raises(InputError, match="take strategy: data_parallel there"):
        run(recipe("absent", "{strategy: mirrored}"), runs_folder=FOLDER / "runs")


class BrokenOff(Progress):
    """Somebody presses Ctrl-C in the epoch after so many."""

    def __init__(self, after):
        self.after, self.done = after, 0

    def batch(self, step, loss, accuracy):
        if self.done == self.after:
            raise KeyboardInterrupt

    def epoch(self, epoch, metrics):
        self.done += 1


def test_a_run_that_was_broken_off_ends_bit_by_bit_as_it_would_have(two):
    with pytest.raises(Interrupted) as stopped:
        run(recipe("broken", TWO), runs_folder=FOLDER / "runs", progress=BrokenOff(after=2))
    folder = Path(str(stopped.value).split()[-1])
    assert checkpoint.latest(folder) is not None
    resumed = resume(folder)
    assert resumed.epochs == two.epochs
    for again, before in zip(statistics_of(resumed), statistics_of(two), strict=True):
        np.testing.assert_array_equal(again, before)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


def test_averages_of_the_weights_outlive_an_evaluation_of_the_averaged_model():
    """Keras gives weights and averages one memory on JAX, and `evaluate` gives away that of the weights."""
    model = functional_net()
    model.compile(keras.optimizers.SGD(0.01, use_ema=True), "sparse_categorical_crossentropy")
    model.fit(nets.images(16), nets.labels(16), verbose=0)
    put_average(model, [], Freeze(), lambda limit=None: [], lambda words: None)
    model.evaluate(nets.images(16), nets.labels(16), verbose=0)
    values = [np.asarray(keras.ops.convert_to_numpy(v)) for v in model.optimizer.variables]
    assert all(np.isfinite(value).all() for value in values)


def test_a_saved_run_is_evaluated_as_it_was_measured(one):
    again = evaluate_saved(one.folder)
    assert again.metrics == pytest.approx(dict(one.test.metrics), abs=1e-6)
