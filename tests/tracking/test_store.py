"""Where runs are kept, how they are named as params, and how they are shown."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from finetune.errors import InputError
from finetune.tracking import open_run, store_uri, ui_address, ui_command
from finetune.tracking.params import LONGEST_VALUE, flat_params


def test_the_store_asked_for_goes_before_the_environment_before_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert store_uri(None) == "sqlite:///mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert store_uri(None) == "http://host:5000"
    assert store_uri("sqlite:///other.db") == "sqlite:///other.db"


@pytest.mark.parametrize("folder", ["mlruns", "file:mlruns"])
def test_a_folder_is_refused_with_what_to_give_instead(folder: str) -> None:
    with pytest.raises(InputError, match=r"no longer keeps runs in a folder; .* sqlite:///mlruns/mlflow\.db"):
        store_uri(folder)


def test_the_ui_is_started_on_the_store() -> None:
    command = ui_command("sqlite:///runs.db", 5001)
    assert command[:4] == [sys.executable, "-m", "mlflow", "server"]
    assert command[command.index("--backend-store-uri") + 1] == "sqlite:///runs.db"
    assert command[command.index("--port") + 1] == "5001"


def test_a_server_shows_its_runs_itself() -> None:
    with pytest.raises(InputError, match=r"open http://ada:\*\*\*@host in a browser"):
        ui_command("http://ada:geheim@host", 5000)


def test_the_ui_opens_on_the_runs_or_on_the_front_page(store: str) -> None:
    with open_run(store, "shown", "a run", {}, {}, pytest.fail):
        pass
    assert "/#/experiments/" in ui_address(store, 5000, "shown")
    assert ui_address(store, 5000, "never run") == "http://127.0.0.1:5000/#/?workflowType=machine_learning"


def test_artifacts_lie_beside_the_database(store: str, tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("here")
    with open_run(store, "beside", "a run", {}, {}, pytest.fail) as tracking:
        tracking.log_file(note)
    database = Path(store.removeprefix("sqlite:///"))
    assert (
        database.parent / "mlartifacts" / tracking.run_id / "artifacts" / "note.txt"
    ).read_text() == "here"


def test_nested_values_become_flat_params() -> None:
    recipe = {
        "seed": 0,
        "batchnorm": {"policy": "retrain", "momentum": "auto"},
        "stages": [{"epochs": 2, "train": "head"}, {"epochs": 1}],
        "data": {"shift": None, "fractions": [0.8, 0.2], "augment": []},
    }
    assert flat_params(recipe) == {
        "seed": "0",
        "batchnorm.policy": "retrain",
        "batchnorm.momentum": "auto",
        "stages.0.epochs": "2",
        "stages.0.train": "head",
        "stages.1.epochs": "1",
        "data.shift": "null",
        "data.fractions": "[0.8, 0.2]",
        "data.augment": "[]",
    }
    assert flat_params({}) == {}


def test_a_long_value_is_cut_to_what_mlflow_takes() -> None:
    (cut,) = flat_params({"long": "x" * (LONGEST_VALUE + 1)}).values()
    assert len(cut) == LONGEST_VALUE
    assert cut.endswith("x...")
    assert flat_params({"fits": "x" * LONGEST_VALUE}) == {"fits": "x" * LONGEST_VALUE}


def test_a_password_does_not_become_a_param() -> None:
    assert flat_params({"uri": "http://ada:geheim@host"}) == {"uri": "http://ada:***@host"}
