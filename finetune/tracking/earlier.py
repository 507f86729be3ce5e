"""What an earlier sitting of a run has logged already: a run that is gone on with logs it once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel


class EarlierSitting:
    """Made by `earlier_sitting`. Asks the store no more than once about each metric."""

    def __init__(self, client: MlflowClient, experiment_id: str, run_id: str) -> None:
        self._client, self._experiment_id, self._run_id = client, experiment_id, run_id
        self._points: dict[str, set[tuple[int, float]]] = {}

    def has(self, name: str, value: float, step: int) -> bool:
        """The same value at the same step; a training that is gone on with repeats them bit by bit."""
        if name not in self._points:
            known = self._client.get_metric_history(self._run_id, name)
            self._points[name] = {(point.step, point.value) for point in known}
        return (step, value) in self._points[name]

    def model(self) -> LoggedModel | None:
        """The model that was logged whole; what was broken off is deleted."""
        whole = None
        found = self._client.search_logged_models(
            [self._experiment_id], filter_string=f"source_run_id = '{self._run_id}'"
        )
        for model in found:
            if str(model.status) == "READY":
                whole = model
            else:
                self._client.delete_logged_model(model.model_id)
        return whole

    def version(self, name: str) -> str | None:
        """The version of a registered model that this run has made."""
        known = self._client.search_model_versions(f"name = '{name}' and run_id = '{self._run_id}'")
        return str(known[0].version) if known else None

    def remove(self, file: str) -> None:
        """An artifact that may be there."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        if any(known.path == file for known in self._client.list_artifacts(self._run_id)):
            get_artifact_repository(self._client.get_run(self._run_id).info.artifact_uri).delete_artifacts(
                file
            )


def run_marked(client: MlflowClient, experiment_id: str, tag: str, value: str) -> str:
    """Id of the run that has this tag; "" where there is none, or no value."""
    if not value:
        return ""
    known = client.search_runs([experiment_id], f"tags.{tag} = '{value}'", max_results=1)
    return str(known[0].info.run_id) if known else ""


def earlier_sitting(client: MlflowClient, experiment_id: str, run_id: str) -> EarlierSitting | None:
    """None where nothing was logged, where the store does not know the run, and where it was deleted there."""
    from mlflow.exceptions import MlflowException

    if not run_id:
        return None
    try:
        known = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    alive = known.info.lifecycle_stage == "active" and known.info.experiment_id == experiment_id
    return EarlierSitting(client, experiment_id, run_id) if alive else None
