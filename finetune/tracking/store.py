"""Where MLflow keeps runs: which store, where its files lie, how it is shown and named."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from finetune.errors import InputError, OutputError
from finetune.folder_lock import alone_behind
from finetune.masking import masked, without_secret

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_STORE = "sqlite:///mlflow.db"
SQLITE = "sqlite:///"

PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
"""The databases that MLflow knows, and where they listen if the URI does not say."""

DATABASE = re.compile(rf"(?P<name>{'|'.join(PORTS)})(\+\w+)?://")

KNOCKING = 10.0
"""Seconds."""

BUSY = 60
"""Seconds that a write to a local database waits for those of others. On a busy machine SQLite's own 5 s are too few,
and a run lost its tracking by them."""

LONGEST_REASON = 200
"""Characters of a warning's reason: MLflow's errors run to pages."""


def store_uri(uri: str | None) -> str:
    """The store that was asked for, else MLFLOW_TRACKING_URI, else `mlflow.db` in the working directory.

    Raises InputError where it names a folder: MLflow 3 no longer keeps runs in folders of files.
    """
    chosen = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE
    if chosen.startswith("databricks") or ("://" in chosen and not chosen.startswith("file:")):
        return chosen
    folder = chosen.removeprefix("file:").rstrip("/") or "."
    raise InputError(
        f"tracking URI {masked(chosen)!r}: MLflow no longer keeps runs in a folder; "
        f"expected a database or a server, for instance sqlite:///{folder}/mlflow.db or http://localhost:5000"
    )


def artifact_folder(uri: str) -> str | None:
    """Where the files of a local database's runs lie: beside it, so that the UI finds them from any folder.

    None where a server decides.
    """
    if not uri.startswith(SQLITE):
        return None
    return (Path(uri.removeprefix(SQLITE)).resolve().parent / "mlartifacts").as_uri()


def require_usable(uri: str) -> None:
    """Open a local database once, knock at a remote one: MLflow would try for 100 s before it says that it cannot.

    Raises OSError or sqlite3.Error.
    """
    if kind := DATABASE.match(uri):
        parts = urlsplit(uri)
        # several hosts, or a socket in the file system, are for the driver to try
        if parts.hostname and "," not in parts.netloc:
            address = (parts.hostname, parts.port or PORTS[kind["name"]])
            socket.create_connection(address, timeout=KNOCKING).close()
    if uri.startswith(SQLITE):
        path = Path(uri.removeprefix(SQLITE))
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path)
        try:
            connection.execute("PRAGMA schema_version")
        finally:
            connection.close()


def open_client(uri: str) -> MlflowClient:
    """A client of a store that is ready.

    One process at a time where it is a local database: MLflow makes and changes the tables without a lock, and of
    processes that open a new one together all fail. Raises as `require_usable`, and whatever MLflow raises.
    """
    from mlflow import MlflowClient

    require_usable(uri)
    with _alone_with(uri):
        patient = patient_uri(uri)
        client = MlflowClient(tracking_uri=patient, registry_uri=patient)
        if uri.startswith(SQLITE):
            # the tables of the runs, and those of the registry
            client.search_experiments(max_results=1)
            client.search_registered_models(max_results=1)
        return client


def patient_uri(uri: str) -> str:
    """The same store; where it is a local database, with the patience to wait for others that write to it."""
    return f"{uri}?timeout={BUSY}" if uri.startswith(SQLITE) and "?" not in uri else uri


@contextmanager
def _alone_with(uri: str) -> Iterator[None]:
    if not uri.startswith(SQLITE):
        yield
        return
    # a file of its own: a run may hold its folder's lock, and closing the database itself would break SQLite's locks
    with alone_behind(Path(f"{uri.removeprefix(SQLITE)}.lock")):
        yield


def require_there(uri: str) -> None:
    """Raises OutputError where a local database was never made: a mistyped place, or the wrong working directory."""
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).is_file():
        raise OutputError(
            f"MLflow at {uri}: there is no such file; say with --tracking-uri or MLFLOW_TRACKING_URI where the store is"
        )


def experiment_id(client: MlflowClient, uri: str, name: str) -> str:
    """That of the experiment of a name, which is made where there is none."""
    from mlflow.exceptions import MlflowException

    known = client.get_experiment_by_name(name)
    if known is None:
        try:
            return str(client.create_experiment(name, artifact_folder(uri)))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            # by another run, since it was asked for
            known = client.get_experiment_by_name(name)
    return str(known.experiment_id)


def failure_in_words(uri: str, error: BaseException) -> str:
    """One line about a store that failed during a run."""
    return f"MLflow at {masked(uri)} failed, tracking ends here and the run goes on: {reason_in_words(uri, error)}"


def reason_in_words(uri: str, error: BaseException) -> str:
    """The innermost cause where a network or a disk did it, in one line, without the password."""
    chosen, inner = error, error.__context__
    while inner is not None:
        by_machine = isinstance(inner, OSError | sqlite3.Error)
        chosen, inner = (inner if by_machine else chosen), inner.__context__
    reason = without_secret(str(chosen).strip().split("\n")[0] or type(chosen).__name__, uri)
    return reason if len(reason) <= LONGEST_REASON else reason[: LONGEST_REASON - 3] + "..."
