"""What MLflow missed is sent later, once, and then it has what it would have had."""

import json
import socket

import pytest
from mlflow import MlflowClient

from finetune.errors import FinetuneError, InputError
from finetune.progress import Progress
from finetune.recipe_file import load_text
from finetune.result_file import read_result, write_result
from finetune.run import run
from finetune.sync_run import sync
from tests.nets import tiny_backbone
from tests.sample_result import sample_result

RECIPE = """
name: small
backbone: {{source: saved, path: {folder}/backbone.keras}}
data:
  source: tfds
  name: fashion_shift
  train: "train[:96]"
  validation: "validation[:48]"
  test: "test[:60]"
  calibration: "calibration[:64]"
  image_size: 12
batchnorm: {{policy: recalibrate}}
stages: [{{train: everything, epochs: 2, learning_rate: 0.005}}]
tracking: {{uri: "{uri}", experiment: synced, register: shirts}}
"""


class Heard(Progress):
    def __init__(self):
        self.notes = []

    def note(self, words):
        self.notes.append(words)


def away():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synced")
    tiny_backbone().save(folder / "backbone.keras")
    return folder


@pytest.fixture(scope="module")
def missed(place):
    """A run whose store was away, and what was said about it."""
    heard = Heard()
    result = run(load_text(RECIPE.format(folder=place, uri=away())), runs_folder=place, progress=heard)
    return result, heard.notes


def in_store(store, name):
    """Of the only run of that folder: its data, the points of its metrics, its files, its model and versions."""
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("synced").experiment_id
    [one] = client.search_runs([experiment], f"tags.run_folder = '{name}'")
    history = {
        metric: [(point.step, point.value) for point in client.get_metric_history(one.info.run_id, metric)]
        for metric in one.data.metrics
        if not metric.startswith("seconds/")
    }
    return {
        "status": one.info.status,
        "params": {k: v for k, v in one.data.params.items() if k != "tracking.uri"},
        "points": {metric: list(dict.fromkeys(points)) for metric, points in history.items()},
        # the mean shift is logged twice at the last epoch, before and after the policy has measured anew
        "twice": [
            metric
            for metric, points in history.items()
            if len(points) > len(set(points)) and not metric.startswith("bn_shift/")
        ],
        "files": sorted(file.path for file in client.list_artifacts(one.info.run_id)),
        "inputs": sorted((used.dataset.name, used.dataset.digest) for used in one.inputs.dataset_inputs),
        "models": len(client.search_logged_models([experiment], f"source_run_id = '{one.info.run_id}'")),
        "versions": len(client.search_model_versions(f"name = 'shirts' and run_id = '{one.info.run_id}'")),
        "verified": one.data.tags["bn.verified"],
    }


def test_a_run_says_how_to_send_what_its_store_missed(missed):
    result, notes = missed
    assert notes[-1] == f"what MLflow missed can be sent later: finetune sync {result.folder}"


def test_it_is_sent_once_and_the_store_has_what_it_would_have_had(place, missed):
    result, _ = missed
    late, straight = (f"sqlite:///{place}/{name}.db" for name in ("late", "straight"))
    first = sync(result.folder, tracking_uri=late)
    once = in_store(late, result.folder.name)
    assert sync(result.folder, tracking_uri=late) == first
    assert in_store(late, result.folder.name) == once
    other = run(load_text(RECIPE.format(folder=place, uri=straight)), runs_folder=place)
    assert in_store(straight, other.folder.name) == once
    assert (once["status"], once["twice"], once["models"], once["versions"]) == ("FINISHED", [], 1, 1)


def test_a_store_that_is_still_away_is_a_failure_and_loses_nothing(missed):
    result, _ = missed
    before = (result.folder / "result.json").read_bytes()
    with pytest.raises(FinetuneError, match="not all was sent; run it again when the store is there"):
        sync(result.folder)
    assert (result.folder / "result.json").read_bytes() == before


def test_a_run_that_is_not_finished_is_to_be_finished_first(missed, tmp_path):
    result, _ = missed
    state = json.loads((result.folder / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(state | {"status": "begun"}))
    with pytest.raises(InputError, match=f"go on with: finetune run --resume {tmp_path}"):
        sync(tmp_path)


def test_a_result_is_read_as_it_was_written(tmp_path):
    result = sample_result(tmp_path, shift=0.4)
    write_result(result, tmp_path)
    assert read_result(tmp_path) == result


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"class_names": 3}'])
def test_a_damaged_result_is_one_line(tmp_path, text):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(
        InputError, match=r"result\.json: missing or damaged; expected what `finetune run` leaves"
    ):
        read_result(tmp_path)
