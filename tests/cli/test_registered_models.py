"""The commands on models in MLflow: what was typed is handed on, and what belongs elsewhere is refused."""

import json
import sys
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient

from finetune.result import Check
from tests.cli.test_deployed_commands import MEASURED, SHIFTS

CHAMPION = "models:/shirts@champion"
DONE = SimpleNamespace(
    address=CHAMPION,
    format="Keras file",
    version=None,
    measurement=MEASURED,
    verdict=SimpleNamespace(checks=(Check("residual", True, "0"),), passed=True, scores={}),
    forced=False,
    shifts=SHIFTS,
    notes=(),
    bytes_changed=512,
)


@pytest.fixture
def asked(monkeypatch):
    """What the stories were asked for; they are made up."""
    asked = {}

    def recalibrate(model, source, settings, **given):
        asked.update(given, model=model, source=source)
        address = None if given["dry"] else "models:/shirts/2"
        served = (given["alias"] or "champion") if given["promote"] else None
        return SimpleNamespace(done=DONE, parent="models:/shirts/1", address=address, alias=served)

    def drift(model, source, settings, progress, *, store):
        asked.update(model=model, store=store)
        return SimpleNamespace(
            address=model, images=99, against="reference", shifts=SHIFTS, overall=0.6, worst="net/bn_2"
        )

    registered = SimpleNamespace(recalibrate=recalibrate, Registered=object)
    monkeypatch.setitem(sys.modules, "finetune.registered_run", registered)
    monkeypatch.setitem(sys.modules, "finetune.drift_series", SimpleNamespace(drift=drift))
    return asked


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """With one model: version 2 was made from version 1, and serves."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.create_registered_model("shirts")
    client.create_model_version("shirts", "file:///nowhere/1")
    scores = {"accuracy_before": "0.3440", "accuracy_after": "0.7800"}
    how = {"parent_version": "1", "statistics": "matched", "method": "layerwise"}
    client.create_model_version("shirts", "file:///nowhere/2", tags={**how, **scores})
    return uri


@pytest.fixture
def promoted(store):
    MlflowClient(tracking_uri=store, registry_uri=store).set_registered_model_alias("shirts", "champion", "2")


def test_recalibrate_hands_on_the_store_and_the_alias(finetune, asked):
    typed = ["--promote", "--alias", "night", "--tracking-uri", "http://host:5000"]
    answer = finetune("recalibrate", CHAMPION, "--images", "today", *typed)
    assert answer.code == 0
    assert (asked["model"], asked["store"]) == (CHAMPION, "http://host:5000")
    assert (asked["promote"], asked["alias"], asked["dry"]) == (True, "night", False)
    assert "models:/shirts/2, made from models:/shirts/1; served as night" in answer.out
    assert "finetune rollback models:/shirts@night" in answer.out


def test_without_promote_it_says_that_no_alias_was_moved(finetune, asked):
    answer = finetune("recalibrate", CHAMPION, "--images", "today")
    assert not asked["promote"]
    assert "no alias was moved" in answer.out
    assert "finetune rollback" not in answer.out


def test_as_json_it_names_version_parent_and_alias(finetune, asked):
    result = json.loads(finetune("recalibrate", CHAMPION, "--images", "today", "--json").out)
    assert (result["version"], result["parent"], result["alias"]) == (
        "models:/shirts/2",
        "models:/shirts/1",
        None,
    )


@pytest.mark.parametrize(
    ("model", "typed", "said"),
    [
        (CHAMPION, ["--out", "there"], "--out: expected MODEL to be a file or a folder"),
        ("models/shirts", ["--promote"], "--promote: expected MODEL to be a model in MLflow"),
        ("models/shirts", ["--tracking-uri", "x"], "--tracking-uri: expected MODEL to be a model in MLflow"),
        (CHAMPION, ["--alias", "night"], "--alias: says which alias --promote moves; give --promote too"),
    ],
)
def test_an_option_of_the_other_kind_of_model_is_refused(finetune, asked, model, typed, said):
    answer = finetune("recalibrate", model, "--images", "today", *typed)
    assert answer.code == 2
    assert said in answer.err
    assert "model" not in asked


@pytest.mark.parametrize(
    ("model", "typed"), [(CHAMPION, []), ("models/shirts", ["--tracking-uri", "http://host:5000"])]
)
def test_drift_is_logged_where_mlflow_is_named(finetune, asked, model, typed):
    answer = finetune("drift", model, "--images", "today", "--threshold", 0.5, *typed)
    assert (asked["model"], asked["store"]) == (model, typed[1] if typed else None)
    assert answer.code == 3


def test_history_lists_the_versions_with_their_parents_and_aliases(finetune, store, promoted):
    newest, oldest = finetune("history", "models:/shirts", "--tracking-uri", store).out.splitlines()
    assert newest.startswith("   2  ")
    assert newest.endswith(
        "recalibrated (matched, layerwise) from version 1; accuracy 0.3440 -> 0.7800  (champion)"
    )
    assert oldest.endswith(" registered")
    rows = json.loads(finetune("history", "models:/shirts", "--tracking-uri", store, "--json").out)
    assert [(row["version"], row["aliases"]) for row in rows] == [(2, ["champion"]), (1, [])]


def test_rollback_moves_the_alias_and_says_so(finetune, store, promoted):
    answer = finetune("rollback", CHAMPION, "--tracking-uri", store, "--reason", "worse at night")
    assert answer.out == f"{CHAMPION}: serves models:/shirts/1 again, no longer models:/shirts/2\n"
    again = finetune("rollback", CHAMPION, "--tracking-uri", store)
    assert again.code == 2
    assert again.err == "error: models:/shirts/1: has no tag parent_version; nothing to go back to\n"
    assert "rolled back 2" in finetune("history", "models:/shirts", "--tracking-uri", store).out


@pytest.mark.parametrize("command", ["history", "rollback"])
def test_a_store_that_is_not_there_is_one_line(finetune, tmp_path, command):
    answer = finetune(command, CHAMPION, "--tracking-uri", f"sqlite:///{tmp_path}/none.db")
    assert answer.code == 2
    assert "there is no such file" in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("command", ["history", "rollback"])
def test_a_server_that_is_away_is_one_line(finetune, command):
    # nothing listens on port 9, and the connection is refused at once
    answer = finetune(command, CHAMPION, "--tracking-uri", "http://127.0.0.1:9")
    assert answer.code == 2
    assert answer.err.startswith("error: MLflow at http://127.0.0.1:9: ")
    assert answer.err.count("\n") == 1
