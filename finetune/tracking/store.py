"""Where MLflow keeps runs: which store, where its files lie, how it is shown and named."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from finetune.errors import InputError
from finetune.masking import masked, without_secret

DEFAULT_STORE = "sqlite:///mlflow.db"
SQLITE = "sqlite:///"

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
    """Open a local database once. MLflow itself would try for 100 s before it says that it cannot.

    Raises OSError or sqlite3.Error.
    """
    if uri.startswith(SQLITE):
        path = Path(uri.removeprefix(SQLITE))
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path)
        try:
            connection.execute("PRAGMA schema_version")
        finally:
            connection.close()


def failure_in_words(uri: str, error: BaseException) -> str:
    """One line about a store that failed: the innermost cause where a network or a disk did, without the password."""
    chosen, inner = error, error.__context__
    while inner is not None:
        chosen, inner = (inner if isinstance(inner, OSError) else chosen), inner.__context__
    reason = without_secret(str(chosen).strip().split("\n")[0] or type(chosen).__name__, uri)
    if len(reason) > LONGEST_REASON:
        reason = reason[: LONGEST_REASON - 3] + "..."
    return f"MLflow at {masked(uri)} failed, tracking ends here and the run goes on: {reason}"
