"""MLflow with little patience and without chatter, for as long as a run is open."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

PATIENCE = {
    # a server that is away blocks for 246 s with MLflow's own defaults
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""Set only where the person has not."""

CHATTY = ("mlflow", "alembic", "urllib3.connectionpool", "git")


@contextmanager
def good_manners(store: str) -> Iterator[None]:
    """Import MLflow, turn it to one store and quieten it; environment and loggers are given back at the end."""
    # the registry of a local database looks for logged models in the store of the process, not of its client
    settings = {name: os.environ.get(name, value) for name, value in PATIENCE.items()}
    # loggers last, because importing MLflow sets their levels
    with _environment(settings | {"MLFLOW_TRACKING_URI": store}), _turned_to(store), _quiet_loggers():
        yield


@contextmanager
def _turned_to(store: str) -> Iterator[None]:
    """What the caller said with `mlflow.set_tracking_uri` goes before the environment, so it must step back too."""
    import mlflow

    before = mlflow.get_tracking_uri()
    if before == store:
        yield
        return
    mlflow.set_tracking_uri(store)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _quiet_loggers() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in CHATTY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        # their errors are raised as well, and told in one line; here they would come with a page of traceback
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
