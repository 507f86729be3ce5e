"""One run in MLflow. A store that fails costs one warning, never the training; one that is slow, not even time."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from finetune.tracking.earlier import EarlierSitting, earlier_sitting, run_marked
from finetune.tracking.manners import good_manners
from finetune.tracking.model_folder import write_model_folder
from finetune.tracking.params import flat_params
from finetune.tracking.points import points_now
from finetune.tracking.sender import Sender
from finetune.tracking.store import SQLITE, experiment_id, failure_in_words, open_client
from finetune.tracking.system_metrics import watch_machine
from finetune.tracking.within import within

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")

KEY = "run_key"
"""Tag that marks the run of one run folder."""

LONGEST_DIGEST = 36
"""Characters that MLflow takes for the digest of a dataset."""

PATIENCE, PATIENCE_WHEN_KILLED = 60.0, 5.0
"""Seconds that a store may take to open a run, and to take what a training has said once that is over. Whoever
interrupts a run waits for less: a batch queue kills soon after it has asked."""


@contextmanager
def open_run(
    store: str | None,
    experiment: str,
    name: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    warn: Callable[[str], None],
    earlier: str = "",
    *,
    key: str = "",
    system_metrics: bool = False,
) -> Iterator[Tracker]:
    """Open a run, and close it as FINISHED, as KILLED when it was interrupted, as FAILED on any other error.

    store: None tracks nothing and imports no MLflow. params: nested, as in a resolved recipe.
    warn: gets one line where the store fails; from then on the tracker does nothing.
    earlier: id of the run to go on with, if the store knows it; what it has already is not logged again. key: where
    there is no id, the run that was begun with the same key is gone on with.
    system_metrics: how busy the machine is, too.
    """
    if store is None:
        yield Tracker(None, warn)
        return
    with good_manners(store):
        tracker = Tracker(store, warn)
        tracker.start(experiment, name, params, {**tags, KEY: key} if key else tags, earlier)
        if system_metrics:
            tracker.watch_machine()
        try:
            yield tracker
        except (KeyboardInterrupt, SystemExit):
            tracker.settle(PATIENCE_WHEN_KILLED)
            tracker.end("KILLED")
            raise
        except BaseException:
            tracker.end("FAILED")
            raise
        tracker.end("FINISHED")


def unless_silent(
    method: Callable[Concatenate[Tracker, Arguments], Answer],
) -> Callable[Concatenate[Tracker, Arguments], Answer | None]:
    """Do nothing on a silent tracker, and make it silent at the first failure; after all that was said before."""

    @wraps(method)
    def attempt(self: Tracker, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer | None:
        self.settle()
        if self.store is None:
            return None
        try:
            return method(self, *args, **kwargs)
        # whatever a network, a database or a full disk raises: hours of training must not end by it
        except Exception as error:
            self.give_up(error)
            return None

    return attempt


class Tracker:
    """What can be said about a run while it is open; made by `open_run`.

    store: None from the start where nothing is tracked, and from the first failure on.
    """

    def __init__(self, store: str | None, warn: Callable[[str], None]) -> None:
        self.store, self._warn = store, warn
        self._client: MlflowClient
        self._name = self._experiment_id = self.run_id = ""
        self._model_id: str | None = None
        self._earlier: EarlierSitting | None = None
        self._monitor: SystemMetricsMonitor | None = None
        self._sender: Sender[Metric] = Sender(self._send)

    @unless_silent
    def start(
        self,
        experiment: str,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        earlier: str = "",
    ) -> None:
        """Begin a run, or go on with the one of that id."""

        def opened() -> None:
            self._open(experiment, name, params, tags, earlier)

        # a file is there or it is not, and waits its turn where others make its tables
        opened() if str(self.store).startswith(SQLITE) else within(PATIENCE, opened)

    def _open(
        self, experiment: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str], earlier: str
    ) -> None:
        from mlflow.entities import Param
        from mlflow.tracking.context.registry import resolve_tags

        store, self._name = str(self.store), name
        self._client = open_client(store)
        self._experiment_id = experiment_id(self._client, store, experiment)
        earlier = earlier or run_marked(self._client, self._experiment_id, KEY, tags.get(KEY, ""))
        self._earlier = earlier_sitting(self._client, self._experiment_id, earlier)
        if self._earlier:
            self.run_id = earlier
            self._client.update_run(earlier, status="RUNNING")
        else:
            # who started it, from which program and which commit: what MLflow's own start_run adds
            run = self._client.create_run(self._experiment_id, tags=resolve_tags(dict(tags)), run_name=name)
            self.run_id = run.info.run_id
        self._client.log_batch(self.run_id, params=[Param(*param) for param in flat_params(params).items()])

    @unless_silent
    def tags_of_children(self, tag: str) -> list[str]:
        """What that tag says on each run whose parent this one is, of those that have it."""
        children = f"tags.mlflow.parentRunId = '{self.run_id}'"
        found, page = list[str](), None
        while True:
            runs = self._client.search_runs([self._experiment_id], children, page_token=page)
            found += [run.data.tags[tag] for run in runs if tag in run.data.tags]
            page = runs.token
            if not page:
                return found

    @unless_silent
    def watch_machine(self) -> None:
        """Until the run ends."""
        self._monitor = watch_machine(str(self.store), self.run_id, resumed=self._earlier is not None)

    @unless_silent
    def end(self, status: str) -> None:
        if self._monitor:
            self._monitor.finish()
        self._client.set_terminated(self.run_id, status)

    def log_epoch(self, step: int, metrics: Mapping[str, float]) -> None:
        """The metrics of one epoch; does not wait for the store, and whatever is said next does."""
        if self.store is None:
            return
        try:
            self._sender.post(points_now([(name, value, step) for name, value in metrics.items()]))
        except Exception as error:
            self.give_up(error)

    def settle(self, patience: float = PATIENCE) -> None:
        """Wait until the epochs have arrived; the tracker falls silent where they do not."""
        if self.store is None:
            return
        try:
            self._sender.settle(patience)
        except Exception as error:
            self.give_up(error)

    @unless_silent
    def log_final(self, metrics: Mapping[str, float]) -> None:
        """Metrics that a run has once; they are those of its model too where that was logged before."""
        # the UI draws bars, one a run, where the only step is 0, and a lonely dot at any other
        self._log_metrics([(name, value, 0) for name, value in metrics.items()], self._model_id)

    @unless_silent
    def log_profile(self, name: str, values: Sequence[float]) -> None:
        """A curve over an index, in one request; the UI draws the index as the step."""
        self._log_metrics([(name, value, index) for index, value in enumerate(values)])

    @unless_silent
    def continue_series(self, name: str, metrics: Mapping[str, float]) -> None:
        """One more step of a series that many runs belong to: a run of that name in the experiment, their parent."""
        from mlflow.entities import Metric
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

        known = self._client.search_runs(
            [self._experiment_id], f"tags.series = {json.dumps(name)}", max_results=1
        )
        series = known[0] if known else self._start_series(name)
        step = len(self._client.get_metric_history(series.info.run_id, next(iter(metrics))))
        now = int(time.time() * 1000)
        points = [Metric(key, value, now, step) for key, value in metrics.items()]
        self._client.log_batch(series.info.run_id, points)
        self._client.set_tag(self.run_id, MLFLOW_PARENT_RUN_ID, series.info.run_id)

    def _start_series(self, name: str) -> Run:
        series = self._client.create_run(self._experiment_id, tags={"series": name}, run_name=name)
        # it is never running: each of its points is there at once
        self._client.set_terminated(series.info.run_id, "FINISHED")
        return series

    @unless_silent
    def log_table(self, rows: Sequence[Mapping[str, Any]], file: str) -> None:
        """Rows with equal keys, as a table in the UI. file: ends in .json."""
        columns = {key: [row[key] for row in rows] for key in rows[0]}
        if self._earlier:
            # MLflow would append to it
            self._earlier.remove(file)
        self._client.log_table(self.run_id, columns, file)

    @unless_silent
    def log_file(self, path: Path, folder: str | None = None) -> None:
        """A copy of a file, or of a folder and all that is in it."""
        self._client.log_artifact(self.run_id, str(path), folder)

    @unless_silent
    def log_figure(self, figure: Figure, file: str) -> None:
        """A matplotlib figure as an image. file: ends in .png or .svg."""
        self._client.log_figure(self.run_id, figure, file)

    @unless_silent
    def set_tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self._client.log_batch(self.run_id, tags=[RunTag(*tag) for tag in tags.items()])

    @unless_silent
    def log_dataset(self, name: str, description: str, digest: str, count: int, context: str) -> None:
        """A split as an input of the run. context: what it is for, as "training"."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = json.dumps({"description": description})
        profile = json.dumps({"images": count})
        dataset = Dataset(name, digest[:LONGEST_DIGEST], source_type="code", source=source, profile=profile)
        used_for = InputTag("mlflow.data.context", context)
        self._client.log_inputs(self.run_id, [DatasetInput(dataset, [used_for])])

    @unless_silent
    def log_model(
        self,
        keras_path: Path,
        images: np.ndarray,
        probabilities: np.ndarray,
        requirements: Sequence[str],
        beside: Sequence[Path] = (),
    ) -> str:
        """Log a `.keras` file as an MLflow model; returns its URI.

        images: uint8 (n, size, size, 3), and the (n, classes) `probabilities` for them: the signature.
        requirements: pinned, as "keras==3.15.1". beside: files that travel with the model.
        """
        from mlflow.entities import LoggedModelOutput

        if self._earlier and (known := self._earlier.model()):
            self._model_id = known.model_id
            return str(known.model_uri)
        # a dot would end the name in a URI
        name = self._name.replace(".", "_")
        logged = self._client.create_logged_model(self._experiment_id, name, source_run_id=self.run_id)
        with tempfile.TemporaryDirectory() as folder:
            write_model_folder(Path(folder), logged, keras_path, images, probabilities, requirements, beside)
            self._client.log_model_artifacts(logged.model_id, folder)
        self._client.finalize_logged_model(logged.model_id, "READY")
        self._client.log_outputs(self.run_id, [LoggedModelOutput(logged.model_id, step=0)])
        self._model_id = logged.model_id
        return str(logged.model_uri)

    @unless_silent
    def register(self, model_uri: str, name: str) -> str:
        """Make a logged model the next version of a registered one; returns the version."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        if self._earlier and (version := self._earlier.version(name)):
            return version
        model_id = model_uri.removeprefix("models:/")
        return str(self._client.create_model_version(name, model_uri, self.run_id, model_id=model_id).version)

    def give_up(self, error: Exception) -> None:
        store, self.store = str(self.store), None
        self._warn(failure_in_words(store, error))

    def _log_metrics(self, points: Sequence[tuple[str, float, int]], model_id: str | None = None) -> None:
        self._send(points_now(points, model_id))

    def _send(self, points: Sequence[Metric]) -> None:
        if self._earlier:
            earlier = self._earlier
            points = [point for point in points if not earlier.has(point.key, point.value, point.step)]
        self._client.log_batch(self.run_id, points)
