"""A logged model is loaded by pyfunc, takes raw images and answers as the model did."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import mlflow.pyfunc
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.models import Model

from finetune.tracking import open_run
from tests.nets import functional_net
from tests.tracking.conftest import EXPERIMENT

REQUIREMENTS = [f"keras=={keras.__version__}"]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The store that a person's own code has turned MLflow to."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('elsewhere')}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    yield uri
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def logged(
    elsewhere: str, store: str, client: MlflowClient, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """A small model, logged twice under one registered name, with what it answered before."""
    folder = tmp_path_factory.mktemp("run")
    model = functional_net()
    model.save(folder / "model.keras")
    (folder / "provenance.json").write_text('{"seed": 0}')
    images = np.random.default_rng(0).integers(0, 256, (4, *model.input_shape[1:]), dtype=np.uint8)
    probabilities = np.asarray(model(images.astype(np.float32), training=False))
    found: dict[str, Any] = {"images": images, "probabilities": probabilities, "versions": []}
    with open_run(store, EXPERIMENT, "small.net", {}, {}, pytest.fail) as tracking:
        for _ in range(2):
            uri = tracking.log_model(
                folder / "model.keras", images, probabilities, REQUIREMENTS, [folder / "provenance.json"]
            )
            assert uri is not None
            found["versions"].append(tracking.register(uri, "clothes"))
        tracking.log_final({"test/accuracy": 0.9})
    found["model"] = client.get_logged_model(uri.removeprefix("models:/"))
    found["folder"] = Path(found["model"].artifact_location.removeprefix("file://"))
    return found


def test_pyfunc_answers_raw_images_as_the_model_did(logged: dict[str, Any]) -> None:
    loaded = mlflow.pyfunc.load_model(str(logged["folder"]))
    np.testing.assert_allclose(loaded.predict(logged["images"]), logged["probabilities"], atol=1e-6)


def test_the_signature_asks_for_raw_images(logged: dict[str, Any]) -> None:
    signature = Model.load(str(logged["folder"])).signature
    (taken,), (given,) = signature.inputs.inputs, signature.outputs.inputs
    assert (taken.type, taken.shape) == (np.uint8, (-1, *logged["images"].shape[1:]))
    assert (given.type, given.shape) == (np.float32, (-1, logged["probabilities"].shape[1]))


def test_requirements_are_the_pinned_ones_and_files_travel_along(logged: dict[str, Any]) -> None:
    lines = (logged["folder"] / "requirements.txt").read_text().split("\n")
    assert REQUIREMENTS[0] in lines
    assert (logged["folder"] / "provenance.json").read_text() == '{"seed": 0}'


def test_the_model_belongs_to_its_run_and_has_its_metrics(
    logged: dict[str, Any], client: MlflowClient
) -> None:
    model = logged["model"]
    assert (model.name, str(model.status)) == ("small_net", "READY")
    assert [(metric.key, metric.value) for metric in model.metrics] == [("test/accuracy", 0.9)]
    outputs = client.get_run(model.source_run_id).outputs.model_outputs
    assert model.model_id in [output.model_id for output in outputs]


def test_registering_again_makes_the_next_version(logged: dict[str, Any], client: MlflowClient) -> None:
    assert logged["versions"] == ["1", "2"]
    assert client.get_model_version("clothes", "2").source == logged["model"].model_uri


def test_mlflow_is_turned_back_to_where_the_person_had_it(logged: dict[str, Any], elsewhere: str) -> None:
    assert mlflow.get_tracking_uri() == os.environ["MLFLOW_TRACKING_URI"] == elsewhere
