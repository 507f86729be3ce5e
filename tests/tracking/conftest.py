"""One real store for all tests of tracking: to create its tables takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from finetune.tracking import open_run
from finetune.tracking.run import Tracker

EXPERIMENT = "tests"


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture(scope="session")
def client(store: str) -> MlflowClient:
    return MlflowClient(tracking_uri=store, registry_uri=store)


@pytest.fixture
def tracked(store: str, client: MlflowClient) -> Callable[..., Any]:
    """Runs a function on the tracker of a new run, whose store must not fail, and reads the run back."""

    def track(act: Callable[[Tracker], object], **given: Any) -> Any:
        given = {"params": {}, "tags": {}, **given}
        with open_run(store, EXPERIMENT, "a run", **given, warn=pytest.fail) as tracking:
            act(tracking)
        return client.get_run(tracking.run_id)

    return track


@pytest.fixture
def artifact(client: MlflowClient, tmp_path: Path) -> Callable[[Any, str], Path]:
    return lambda run, name: Path(client.download_artifacts(run.info.run_id, name, str(tmp_path)))
