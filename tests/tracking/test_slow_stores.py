"""A store that is slow, silent, full, or vanishes in the middle of a training, behind a real server and without one."""

from __future__ import annotations

import socket
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from finetune.tracking import open_run, run
from finetune.tracking.sender import Sender
from finetune.tracking.within import within

EPOCHS = [(step, 1.0 / step) for step in range(1, 8)]


class Server:
    """MLflow's own, of this process. answering: cleared, it holds every request. broken: it answers 500."""

    def __init__(self, store: str) -> None:
        from mlflow.server import app

        self.app, self.answering, self.broken = app, threading.Event(), False
        self.answering.set()
        self.asked: list[str] = []
        self.port = 0
        self.client = MlflowClient(tracking_uri=store, registry_uri=store)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        self.asked.append(environ["PATH_INFO"].rsplit("/", 1)[-1])
        self.answering.wait()
        if self.broken:
            start_response("500 INTERNAL SERVER ERROR", [("Content-Type", "application/json")])
            return [b'{"error_code": "INTERNAL_ERROR", "message": "database or disk is full"}']
        return self.app(environ, start_response)

    def start(self) -> None:
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log(self, *words: Any) -> None:
                pass

        self.serving = make_server("127.0.0.1", self.port, self, threaded=True, request_handler=Quiet)
        self.port = self.serving.server_port
        threading.Thread(target=self.serving.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.serving.shutdown()
        self.serving.server_close()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def losses(self, run_id: str) -> list[tuple[int, float]]:
        return [(point.step, point.value) for point in self.client.get_metric_history(run_id, "loss")]


@pytest.fixture
def server(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", store)
    monkeypatch.setenv("_MLFLOW_SERVER_REGISTRY_STORE", store)
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", str(tmp_path))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    serving = Server(store)
    serving.start()
    yield serving
    serving.answering.set()
    serving.stop()


def say(tracking: Any, epochs: Sequence[tuple[int, float]] = EPOCHS) -> None:
    for step, loss in epochs:
        tracking.log_epoch(step, {"loss": loss})


def test_epochs_do_not_wait_for_a_server_and_arrive_in_two_requests(server: Server) -> None:
    with open_run(server.uri, "slow", "a run", {}, {}, pytest.fail) as tracking:
        server.answering.clear()
        # were they sent here, this would never end
        say(tracking)
        while server.asked.count("log-batch") < 2:  # the params, and the first epoch
            time.sleep(0.01)
        assert server.losses(tracking.run_id) == []
        server.answering.set()
    assert server.losses(tracking.run_id) == EPOCHS
    # the first epoch under way, all others together
    assert server.asked.count("log-batch") in (2, 3)


def test_what_is_said_after_the_epochs_arrives_after_them(server: Server) -> None:
    with open_run(server.uri, "slow", "a run", {}, {}, pytest.fail) as tracking:
        say(tracking)
        tracking.log_final({"loss": 9.0})
        assert server.losses(tracking.run_id) == [*EPOCHS, (0, 9.0)]


def test_a_point_has_the_time_at_which_it_was_said(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_run(server.uri, "slow", "a run", {}, {}, pytest.fail) as tracking:
        server.answering.clear()
        monkeypatch.setattr("finetune.tracking.points.time.time", lambda: 1e9)
        tracking.log_epoch(1, {"loss": 1.0})
        monkeypatch.undo()
        server.answering.set()
        tracking.settle()
    assert [p.timestamp for p in server.client.get_metric_history(tracking.run_id, "loss")] == [10**12]


def test_a_server_that_vanishes_and_one_whose_disk_is_full_cost_one_warning(server: Server) -> None:
    for what, expected in (("vanishes", "Connection refused"), ("is full", "500")):
        warnings: list[str] = []
        with open_run(server.uri, "slow", "a run", {}, {}, warnings.append) as tracking:
            say(tracking, EPOCHS[:2])
            tracking.settle()
            if what == "vanishes":
                server.stop()
            server.broken = True
            say(tracking, EPOCHS[2:4])
            tracking.settle()
            say(tracking, EPOCHS[4:])
            assert tracking.log_final({"test": 1.0}) is None
        (warning,) = warnings
        assert expected in warning
        assert server.losses(tracking.run_id) == EPOCHS[:2]
        # it is there again, and the run is gone on with: all of them, and none twice
        server.broken = False
        if what == "vanishes":
            server.start()
        with open_run(server.uri, "slow", "a run", {}, {}, pytest.fail, tracking.run_id) as again:
            say(again)
        assert server.losses(tracking.run_id) == EPOCHS


def test_an_interrupted_run_does_not_wait_long(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "PATIENCE_WHEN_KILLED", 0.2)
    warnings: list[str] = []

    def broken_off() -> None:
        with open_run(server.uri, "slow", "a run", {}, {}, warnings.append) as tracking:
            server.answering.clear()
            say(tracking)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    (warning,) = warnings
    assert "no answer within 0.2 s" in warning


def test_a_server_that_says_nothing_does_not_hold_a_run_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "PATIENCE", 0.2)
    warnings: list[str] = []
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with open_run(uri, "slow", "a run", {}, {}, warnings.append) as tracking:
            say(tracking)
    (warning,) = warnings
    assert "no answer within 0.2 s" in warning


@pytest.mark.parametrize("kind", ["postgresql", "postgresql+psycopg2", "mysql+pymysql", "mssql+pymssql"])
def test_a_database_that_is_away_is_knocked_at_once(kind: str) -> None:
    """MLflow would try for 100 s; no driver is needed to find out."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        warnings: list[str] = []
        with open_run(f"{kind}://ada:geheim@127.0.0.1:{port}/runs", "e", "r", {}, {}, warnings.append):
            pass
    (warning,) = warnings
    assert "Connection refused" in warning
    assert "geheim" not in warning


def test_a_local_store_whose_disk_is_full_costs_one_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def no_page_more(connection: Any, *rest: Any) -> None:
        # SQLite answers as on a full disk
        connection.execute("PRAGMA max_page_count = 1")

    warnings: list[str] = []
    with open_run(f"sqlite:///{tmp_path}/mlflow.db", "full", "a run", {}, {}, warnings.append) as tracking:
        say(tracking)
        tracking.settle()
        event.listen(Engine, "checkout", no_page_more)
        try:
            say(tracking, [(step, float(step)) for step in range(100, 3000)])
            tracking.settle()
        finally:
            event.remove(Engine, "checkout", no_page_more)
    (warning,) = warnings
    assert "database or disk is full" in warning
    # MLflow's own words for it are a page of traceback
    assert capfd.readouterr() == ("", "")


def test_a_local_store_that_others_hold_for_longer_than_sqlite_waits_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with open_run(f"sqlite:///{path}", "busy", "a run", {}, {}, pytest.fail) as tracking:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            say(tracking)
            # SQLite's own patience is 5 s
            time.sleep(7)
            other.execute("COMMIT")
        tracking.log_final({"test": 1.0})
    client = MlflowClient(tracking_uri=f"sqlite:///{path}")
    assert [(p.step, p.value) for p in client.get_metric_history(tracking.run_id, "loss")] == EPOCHS


class Refused(Exception):
    pass


def test_a_sender_keeps_the_order_whatever_the_pauses() -> None:
    sent: list[int] = []

    def send(items: Sequence[int]) -> None:
        time.sleep(0.001 * (items[0] % 3))
        sent.extend(items)

    sender = Sender(send)
    for number in range(300):
        sender.post([2 * number, 2 * number + 1])
        if number % 50 == 0:
            sender.settle(10)
            assert sent == list(range(2 * number + 2))
    sender.settle(10)
    assert sent == list(range(600))


def test_a_sender_tells_of_a_failure_and_drops_the_rest() -> None:
    sent: list[int] = []

    def send(items: Sequence[int]) -> None:
        sent.extend(items)
        raise Refused

    sender = Sender(send)
    sender.post([1])
    with pytest.raises(Refused):
        sender.settle(10)
    with pytest.raises(Refused):
        sender.post([2])
    with pytest.raises(Refused):
        sender.settle(10)
    assert sent == [1]


def test_a_call_is_waited_for_so_long_and_no_longer() -> None:
    hanging = threading.Event()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
        within(0.05, lambda: hanging.wait() and None)
    hanging.set()
    done: list[int] = []
    within(10, lambda: done.append(1))
    assert done == [1]
    with pytest.raises(Refused):
        within(10, lambda: (_ for _ in ()).throw(Refused))
