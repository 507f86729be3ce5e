"""A run from recipe to MLflow, on a small network of its own: every policy, and every way it can end."""

import errno
import json

import keras
import numpy as np
import pytest

from finetune.batchnorm.moments_file import load
from finetune.errors import DivergedError, InputError, OutputError, ProofError
from finetune.evaluation_run import evaluate_saved
from finetune.policies import POLICIES, Freeze
from finetune.recipe_file import load_text
from finetune.run import run
from tests.nets import tiny_backbone

RECIPE = """
name: small
seed: 1
backbone: {{source: saved, path: {backbone}}}
data:
  source: tfds
  name: fashion_shift
  train: "train[:96]"
  validation: "validation[:48]"
  test: "test[:60]"
  calibration: "calibration[:64]"
  image_size: 12
  batch_size: 32
  shift: {{kind: contrast, severity: 2}}
batchnorm: {{policy: {policy}}}
stages:
  - {{train: head, epochs: 1, learning_rate: 0.1}}
  - {{train: everything, epochs: 2, learning_rate: 0.005}}
tracking: {{uri: "sqlite:///{folder}/mlflow.db", register: small}}
"""


SECRET = "cdb7-not-to-be-recorded"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a pretrained backbone of two sites in depth."""
    folder = tmp_path_factory.mktemp("runs")
    tiny_backbone().save(folder / "backbone.keras")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CLOUD_ACCESS_KEY", SECRET)
        yield folder


def recipe(place, policy="freeze", *overrides):
    text = RECIPE.format(backbone=place / "backbone.keras", policy=policy, folder=place)
    return load_text(text, overrides=overrides)


@pytest.fixture(scope="module", params=[policy().policy for policy in POLICIES])
def finished(request, place):
    return run(recipe(place, request.param), runs_folder=place / "runs")


def test_nothing_of_the_environment_is_in_the_folder_or_in_the_store(finished, place):
    written = [file for file in place.rglob("*") if file.is_file()]
    assert {"result.json", "provenance.json", "mlflow.db"} <= {file.name for file in written}
    assert not [file for file in written if SECRET.encode() in file.read_bytes()]


def test_every_policy_is_proven_and_leaves_a_whole_folder(finished):
    assert finished.verified
    assert sorted(p.name for p in finished.folder.iterdir()) == [
        "metrics.jsonl",
        "model.keras",
        "model_card.md",
        "provenance.json",
        "recipe.yaml",
        "reference_statistics.npz",
        "report.html",
        "result.json",
        "run.json",
        "saved_model",
    ]


def test_the_shift_is_zero_exactly_where_nothing_may_move(finished):
    moved = any(site.shift_kl > 0 for site in finished.sites)
    assert moved is (finished.policy not in ("freeze", "affine"))
    assert [site.path for site in finished.sites] == ["saved/bn_1", "saved/bn_2"]


def test_metrics_of_every_epoch_lie_in_the_folder(finished):
    lines = [json.loads(line) for line in (finished.folder / "metrics.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["epoch"], line["step"]) for line in lines] == [
        (1, 1, 1),
        (2, 1, 2),
        (2, 2, 3),
    ]
    assert all(
        {"train/loss", "validation/accuracy", "bn_shift/kl", "learning_rate"} <= set(line) for line in lines
    )


def test_the_model_answers_as_the_run_measured_it(finished):
    again = evaluate_saved(finished.folder)
    assert again.metrics == pytest.approx(dict(finished.test.metrics), abs=1e-6)
    assert again.confusion == finished.test.confusion


def test_reference_statistics_are_those_of_the_training_images(finished):
    reference = load(finished.folder / "reference_statistics.npz").moments
    assert list(reference) == ["saved/bn_1", "saved/bn_2"]
    # 96 images of 10 x 10 and of 8 x 8 positions behind the two convolutions
    assert [m.count for m in reference.values()] == [96 * 100, 96 * 64]
    provenance = json.loads((finished.folder / "provenance.json").read_text())
    assert provenance["running_statistics"]["reference_images"] == 96


def test_mlflow_has_the_run_and_the_registered_model(finished, place):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place}/mlflow.db")
    experiment = client.get_experiment_by_name("finetune")
    (found,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{finished.name}'")
    assert found.info.status == "FINISHED"
    assert found.data.tags["bn.verified"] == "true"
    assert found.data.params["batchnorm.policy"] == finished.policy
    assert found.data.metrics["test/accuracy"] == pytest.approx(finished.test.metrics["accuracy"])
    assert len(client.get_metric_history(found.info.run_id, "bn_depth/kl")) == 2
    assert len(found.inputs.dataset_inputs) == 4
    assert found.info.run_id in {v.run_id for v in client.search_model_versions("name='small'")}


def test_the_same_recipe_gives_bit_equal_results(finished, place):
    again = run(recipe(place, finished.policy, "tracking.enabled=false"), runs_folder=place / "runs")
    assert again.name != finished.name
    assert again.test == finished.test
    assert [e.metrics for e in again.epochs] == [e.metrics for e in finished.epochs]
    weights = [keras.models.load_model(r.folder / "model.keras").get_weights() for r in (finished, again)]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(*weights, strict=True))


def test_a_broken_promise_fails_the_run_and_publishes_nothing(place, monkeypatch):
    """As if freezing did nothing, which is what a baked training=False does on this Keras."""
    monkeypatch.setattr(Freeze, "prepare", lambda self, sites, **_: None)
    with pytest.raises(ProofError) as error:
        run(recipe(place, "freeze", "name=broken"), runs_folder=place / "runs")
    assert error.value.exit_code == 5
    assert "running statistics are fixed: NOT frozen: 2 of 2 sites differ from the pretrained ones" in str(
        error.value
    )
    folder = place / "runs" / "broken-1"
    assert sorted(p.name for p in folder.iterdir()) == [
        "metrics.jsonl",
        "recipe.yaml",
        "report.html",
        "result.json",
        "run.json",
    ]
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place}/mlflow.db")
    experiment = client.get_experiment_by_name("finetune")
    (failed,) = client.search_runs([experiment.experiment_id], "attributes.run_name = 'broken-1'")
    assert (failed.info.status, failed.data.tags["bn.verified"]) == ("FAILED", "false")
    assert failed.info.run_id not in {v.run_id for v in client.search_model_versions("name='small'")}


@pytest.mark.parametrize(
    "override", ["stages.1.train={from: conv_9}", "data.train=train[:96]x", "head.weights=pretrained"]
)
def test_what_does_not_fit_is_found_before_anything_is_written(place, tmp_path, override):
    with pytest.raises(InputError):
        run(recipe(place, "freeze", override), runs_folder=tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


def test_a_divergence_keeps_the_last_good_weights(place):
    overrides = ["name=hot", "stages.1.learning_rate=1e9", "stages.1.warmup=0.0", "tracking.enabled=false"]
    with pytest.raises(DivergedError) as error:
        run(recipe(place, "freeze", *overrides), runs_folder=place / "runs")
    folder = place / "runs" / "hot-1"
    assert str(error.value).startswith("stage 2 of 2: train everything, 2 epochs, sgd at 1e+09: the loss ")
    assert str(error.value).endswith(f"the last good weights are in {folder / 'last_good.weights.h5'}")
    import h5py

    with h5py.File(folder / "last_good.weights.h5") as file:
        values: list[np.ndarray] = []
        file.visititems(lambda _, item: values.append(item[()]) if isinstance(item, h5py.Dataset) else None)
    assert len(values) > 8
    assert all(np.isfinite(value).all() for value in values)


def test_no_space_left_is_one_line(place, monkeypatch):
    from finetune import run as module

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "report.html")

    monkeypatch.setattr(module, "write_report", full)
    with pytest.raises(OutputError) as error:
        run(recipe(place, "freeze", "name=full", "tracking.enabled=false"), runs_folder=place / "runs")
    assert str(error.value) == (
        "report.html: no space left on the device; make room or choose another place with --runs-dir "
        f"(what was written so far stays in {place / 'runs' / 'full-1'})"
    )


def test_the_password_of_a_tracking_store_is_written_nowhere(place):
    uri = "postgresql://me:hunter2@localhost:1/db"
    result = run(
        recipe(place, "freeze", "name=secret", f"tracking.uri={uri}"),
        runs_folder=place / "runs",
        tracking_uri=f"sqlite:///{place}/mlflow.db",
    )
    for path in result.folder.rglob("*"):
        assert path.is_dir() or b"hunter2" not in path.read_bytes(), path
    assert "me:***@localhost" in (result.folder / "recipe.yaml").read_text()


def test_precision_is_given_back(place):
    result = run(
        recipe(place, "retrain", "name=half", "precision=mixed_bfloat16", "tracking.enabled=false"),
        runs_folder=place / "runs",
    )
    assert result.verified
    assert keras.mixed_precision.dtype_policy().name == "float32"


def test_class_weights_and_augmentation_run(place):
    overrides = [
        "name=augmented",
        "data.class_weights=balanced",
        "data.augment=[{layer: RandomFlip}]",
        "tracking.enabled=false",
    ]
    first, second = (
        run(recipe(place, "recalibrate", *overrides), runs_folder=place / "runs") for _ in range(2)
    )
    assert first.verified
    assert [e.metrics for e in first.epochs] == [e.metrics for e in second.epochs]


def test_evaluate_under_another_camera_differs(place, finished):
    other = evaluate_saved(finished.folder, overrides=["data.shift.kind=invert"])
    assert other.count == finished.test.count
    assert other.metrics["cross_entropy"] != finished.test.metrics["cross_entropy"]
