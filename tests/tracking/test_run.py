"""A run says in a real store what it was told, and a store that fails costs one warning."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from finetune.tracking import open_run
from tests.tracking.conftest import EXPERIMENT

Tracked = Callable[..., Any]


def history(client: MlflowClient, run: Any, metric: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, metric)]


def test_params_and_tags_are_those_of_the_run(tracked: Tracked) -> None:
    params = {f"many.{number}": number for number in range(150)}
    run = tracked(lambda tracking: None, params=params, tags={"bn.policy": "freeze"})
    assert run.data.params == {name: str(value) for name, value in params.items()}
    assert run.data.tags["bn.policy"] == "freeze"
    assert run.info.run_name == "a run"


def test_epochs_are_steps(tracked: Tracked, client: MlflowClient) -> None:
    def act(tracking: Any) -> None:
        tracking.log_epoch(1, {"train/loss": 2.0, "train/accuracy": 0.1})
        tracking.log_epoch(2, {"train/loss": 1.0, "train/accuracy": 0.5})

    run = tracked(act)
    assert history(client, run, "train/loss") == [(1, 2.0), (2, 1.0)]
    assert history(client, run, "train/accuracy") == [(1, 0.1), (2, 0.5)]


def test_a_profile_has_its_index_as_step(tracked: Tracked, client: MlflowClient) -> None:
    values = [float(number) for number in range(1500)]
    run = tracked(lambda tracking: tracking.log_profile("bn_depth/mean", values))
    assert history(client, run, "bn_depth/mean") == list(enumerate(values))


def test_a_table_is_kept_row_by_row(tracked: Tracked, artifact: Callable[[Any, str], Path]) -> None:
    rows = [{"site": 0, "path": "a"}, {"site": 1, "path": "b"}]
    run = tracked(lambda tracking: tracking.log_table(rows, "sites.json"))
    table = json.loads(artifact(run, "sites.json").read_text())
    assert table == {"columns": ["site", "path"], "data": [[0, "a"], [1, "b"]]}


def test_a_figure_and_a_file_become_artifacts(tracked: Tracked, client: MlflowClient, tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    (tmp_path / "notes.txt").write_text("text")

    def act(tracking: Any) -> None:
        tracking.log_figure(Figure(), "empty.png")
        tracking.log_file(tmp_path / "notes.txt", "words")

    run_id = tracked(act).info.run_id
    assert [file.path for file in client.list_artifacts(run_id)] == ["empty.png", "words"]
    assert [file.path for file in client.list_artifacts(run_id, "words")] == ["words/notes.txt"]


def test_a_split_is_a_dataset_input(tracked: Tracked) -> None:
    run = tracked(lambda tracking: tracking.log_dataset("fashion", "images 0 to 9", "d" * 64, 10, "training"))
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("fashion", "d" * 36)
    assert json.loads(used.dataset.source) == {"description": "images 0 to 9"}
    assert json.loads(used.dataset.profile) == {"images": 10}
    assert [(tag.key, tag.value) for tag in used.tags] == [("mlflow.data.context", "training")]


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "FINISHED"), (ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")],
)
def test_a_run_ends_as_what_ended_it(
    error: type[BaseException] | None, status: str, store: str, client: MlflowClient
) -> None:
    run_ids = []

    def body() -> None:
        with open_run(store, EXPERIMENT, "a run", {}, {}, pytest.fail) as tracking:
            run_ids.append(tracking.run_id)
            if error:
                raise error

    if error:
        with pytest.raises(error):
            body()
    else:
        body()
    assert client.get_run(run_ids[0]).info.status == status


def a_closed_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def test_a_server_that_is_away_costs_one_warning_without_the_password(tmp_path: Path) -> None:
    warnings: list[str] = []
    away = f"http://ada:geheim@127.0.0.1:{a_closed_port()}"
    with open_run(away, EXPERIMENT, "a run", {"a": 1}, {}, warnings.append) as tracking:
        tracking.log_epoch(1, {"loss": 1.0})
        tracking.log_table([{"a": 1}], "a.json")
        assert tracking.register("models:/m-1", "name") is None
    (warning,) = warnings
    assert "http://ada:***@127.0.0.1" in warning
    assert "the run goes on" in warning
    assert "Connection refused" in warning
    assert "geheim" not in warning


def test_a_file_that_is_no_database_costs_one_warning(tmp_path: Path) -> None:
    warnings: list[str] = []
    (tmp_path / "mlflow.db").write_text("no database " * 100)
    with open_run(f"sqlite:///{tmp_path}/mlflow.db", EXPERIMENT, "a run", {}, {}, warnings.append):
        pass
    assert len(warnings) == 1
    assert "file is not a database" in warnings[0]


def test_after_a_failure_in_the_middle_the_tracker_is_silent(store: str, client: MlflowClient) -> None:
    warnings: list[str] = []
    with open_run(store, EXPERIMENT, "a run", {}, {}, warnings.append) as tracking:
        tracking.log_epoch(1, {"loss": 1.0})
        tracking.settle()
        tracking.log_epoch(2, {"a name with [brackets], which MLflow refuses": 1.0})
        tracking.log_epoch(3, {"loss": 3.0})
    assert len(warnings) == 1
    assert client.get_run(tracking.run_id).data.metrics == {"loss": 1.0}


def test_without_a_store_nothing_is_tracked_and_mlflow_not_imported() -> None:
    program = (
        "import sys; from finetune.tracking import open_run\n"
        "with open_run(None, 'e', 'r', {}, {}, print) as tracking: tracking.log_epoch(1, {'loss': 1.0})\n"
        "print('mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_mlflow_says_nothing_and_gets_its_settings_back(
    store: str, capfd: pytest.CaptureFixture[str]
) -> None:
    environment, level = dict(os.environ), logging.getLogger("mlflow").level
    with open_run(store, EXPERIMENT, "a run", {}, {}, pytest.fail) as tracking:
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
        logging.getLogger("mlflow.tracking").warning("no git here")
        logging.getLogger("alembic.runtime").info("Running upgrade")
        tracking.log_epoch(1, {"loss": 1.0})
    assert capfd.readouterr() == ("", "")
    assert (dict(os.environ), logging.getLogger("mlflow").level) == (environment, level)


def test_the_patience_that_a_person_chose_is_kept(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")
    with open_run(store, EXPERIMENT, "a run", {}, {}, pytest.fail):
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "5"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "5"


def test_how_busy_the_machine_is_has_its_own_metrics(
    store: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")

    def metrics_of(asked: bool, earlier: str = "", more_than: int = 1) -> tuple[str, list[int]]:
        with open_run(store, EXPERIMENT, "busy", {}, {}, print, earlier, system_metrics=asked) as tracking:
            deadline = time.monotonic() + 30
            found: list[Any] = []
            while asked and len(found) <= more_than and time.monotonic() < deadline:
                found = client.get_metric_history(tracking.run_id, "system/cpu_utilization_percentage")
        found = client.get_metric_history(tracking.run_id, "system/cpu_utilization_percentage")
        return tracking.run_id, [point.step for point in found]

    run_id, steps = metrics_of(True)
    assert steps == list(range(len(steps)))
    assert len(steps) >= 2
    # a run that goes on goes on counting
    _, more = metrics_of(True, run_id, more_than=len(steps))
    assert more == list(range(len(more)))
    assert len(more) > len(steps)
    assert metrics_of(False)[1] == []


TOGETHER = """
import sys
from finetune.tracking import open_run
said = []
with open_run(sys.argv[1], "together", sys.argv[2], {}, {}, said.append) as tracking:
    for step in range(1, 31):
        tracking.log_epoch(step, {"a": 1.0, "b": 2.0})
print("; ".join(said))
"""


def test_processes_that_begin_together_in_a_new_store_lose_nothing(tmp_path: Path) -> None:
    """MLflow makes the tables without a lock: without ours, all of them lost all they had to say."""
    store, names = f"sqlite:///{tmp_path}/new/mlflow.db", ("one", "two", "three")
    started = [
        subprocess.Popen([sys.executable, "-c", TOGETHER, store, name], stdout=subprocess.PIPE, text=True)
        for name in names
    ]
    assert [process.communicate(timeout=600)[0].strip() for process in started] == ["", "", ""]
    client = MlflowClient(tracking_uri=store)
    runs = client.search_runs([client.get_experiment_by_name("together").experiment_id])
    assert {run.info.run_name for run in runs} == set(names)
    for run in runs:
        assert [step for step, _ in history(client, run, "a")] == list(range(1, 31))
        assert len(history(client, run, "b")) == 30


def test_a_clock_that_jumps_back_changes_no_step(
    tracked: Tracked, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(tracking: Any) -> None:
        for step, now in enumerate((2e9, 1e9, 3e9), start=1):
            monkeypatch.setattr(time, "time", lambda now=now: now)
            tracking.log_epoch(step, {"train/loss": float(step)})
        monkeypatch.undo()

    run = tracked(act)
    assert sorted(history(client, run, "train/loss")) == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert run.data.metrics["train/loss"] == 3.0
