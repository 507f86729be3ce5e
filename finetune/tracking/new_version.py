"""A changed model folder as a logged model and the next version of a registered one, tied to what it was made from."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.tracking.address import Found
from finetune.tracking.params import flat_params
from finetune.tracking.store import experiment_id

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

EXPERIMENT = "recalibration"
PARENT = "parent_version"
"""Tag of a version: the number of the one that it was made from."""


@dataclass(frozen=True)
class Entry:
    """What is said of a new version. params: nested. tags: of the version. documents: by file name, kept as JSON."""

    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    documents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def log_version(client: MlflowClient, store: str, folder: Path, parent: Found, entry: Entry) -> str:
    """Log a model folder, and register it as the next version where its parent is registered; returns its address.

    The version is the last thing that is made: whatever fails before registers nothing. The folder's MLmodel file is
    rewritten, since it names the model that it belongs to. Raises whatever the store raises.
    """
    from mlflow.tracking.context.registry import resolve_tags

    tags = {**_ids(parent), **entry.tags}
    experiment = experiment_id(client, store, EXPERIMENT)
    run = client.create_run(experiment, tags=resolve_tags({}), run_name=parent.pinned).info.run_id
    try:
        model = client.create_logged_model(experiment, "model", run, tags=tags)
        _describe(client, run, model, {**tags, **entry.params}, entry)
        _store(client, run, model, folder)
    except BaseException:
        # the first failure is the one to tell
        with suppress(Exception):
            client.set_terminated(run, "FAILED")
        raise
    client.set_terminated(run, "FINISHED")
    if parent.name is None:
        return str(model.model_uri)
    made = client.create_model_version(parent.name, model.model_uri, run, tags=tags, model_id=model.model_id)
    return f"models:/{parent.name}/{made.version}"


def _ids(parent: Found) -> dict[str, str]:
    known = {
        "parent": parent.pinned,
        PARENT: parent.version,
        "parent_model_id": parent.model_id,
        "parent_run_id": parent.run_id,
    }
    return {key: str(value) for key, value in known.items() if value is not None}


def _describe(
    client: MlflowClient, run: str, model: LoggedModel, params: Mapping[str, Any], entry: Entry
) -> None:
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    client.log_batch(
        run,
        metrics=[Metric(*each, now, 0, model_id=model.model_id) for each in entry.metrics.items()],
        params=[Param(*each) for each in flat_params(params).items()],
    )
    for name, document in entry.documents.items():
        client.log_dict(run, dict(document), name)


def _store(client: MlflowClient, run: str, model: LoggedModel, folder: Path) -> None:
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    described = Model.load(str(folder))
    described.run_id, described.artifact_path = run, model.artifact_location
    described.model_id = described.model_uuid = model.model_id
    described.save(str(folder / "MLmodel"))
    client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run, [LoggedModelOutput(model.model_id, step=0)])
