"""A backbone by its MLflow address: what was logged comes back."""

import keras
import mlflow
import numpy as np
import pytest

from finetune.backbones import Saved
from finetune.errors import WeightsError
from tests.nets import functional_net, images


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    experiment = mlflow.create_experiment("nets", artifact_location=str(folder / "artifacts"))
    net = functional_net()
    with mlflow.start_run(experiment_id=experiment) as run:
        mlflow.keras.log_model(net, name="model", registered_model_name="nets", pip_requirements=["keras"])
        mlflow.log_dict({"a": 1}, "notes/model.json")
    mlflow.MlflowClient().set_registered_model_alias("nets", "champion", 1)
    yield net, run.info.run_id
    mlflow.set_tracking_uri(None)


@pytest.mark.parametrize("address", ["models:/nets/1", "models:/nets@champion", "runs:/{run}/model"])
def test_every_address_leads_to_the_model(logged, address):
    net, run = logged
    built = Saved(path=address.format(run=run)).build(8)
    features = keras.Model(net.input, net.layers[-1].input)
    np.testing.assert_allclose(built.model(images(3)), features(images(3)), atol=1e-5)
    assert built.origin["file"] == address.format(run=run)
    assert len(built.origin["sha256"]) == 64


def test_the_size_is_left_open_without_asking_the_store():
    assert Saved(path="models:/none/1").default_image_size == 224


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("models:/other/1", "models:/other/1: MLflow does not have it ("),
        ("runs:/{run}/notes", "holds no model that mlflow.keras logged (data/model.keras)"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(logged, address, said):
    with pytest.raises(WeightsError) as caught:
        Saved(path=address.format(run=logged[1])).build(8)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
