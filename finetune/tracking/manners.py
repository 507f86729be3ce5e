"""MLflow with little patience and without chatter, for as long as a run is open."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = {
    # a server that is away blocks for 246 s with MLflow's own defaults
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Set only where the person has not."""

CHATTY = ("mlflow", "alembic", "urllib3.connectionpool", "git")


@contextmanager
def good_manners() -> Iterator[None]:
    """Import MLflow and quieten it; environment and loggers are given back at the end."""
    added = {name: value for name, value in PATIENCE.items() if name not in os.environ}
    os.environ.update(added)
    # first, because the import sets the levels of its loggers
    import mlflow  # noqa: F401

    loggers = [logging.getLogger(name) for name in CHATTY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name in added:
            os.environ.pop(name, None)
