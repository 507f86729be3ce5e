"""A parent run with children, which many processes and many sittings add to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from finetune.tracking.manners import good_manners
from finetune.tracking.run import Tracker


class Family:
    """Made by `open_family`; does nothing where nothing is tracked, or the store has failed."""

    def __init__(self, store: str | None, experiment: str, warn: Callable[[str], None]) -> None:
        self.store, self.experiment, self._warn = store, experiment, warn
        self.parent = Tracker(store, warn)

    def add(
        self, name: str, params: Mapping[str, Any], tags: Mapping[str, str], metrics: Mapping[str, float]
    ) -> None:
        """A finished child; FAILED where it has no metrics."""
        if self.parent.store is None:
            return
        child = Tracker(self.parent.store, self._warn)
        child.start(self.experiment, name, params, {**tags, "mlflow.parentRunId": self.parent.run_id})
        child.log_final(metrics)
        child.end("FINISHED" if metrics else "FAILED")


@contextmanager
def open_family(
    store: str | None, experiment: str, name: str, params: Mapping[str, Any], warn: Callable[[str], None]
) -> Iterator[Family]:
    """A parent run, ended as FINISHED, or as KILLED when it was interrupted, or as FAILED.

    store: None tracks nothing. warn: gets one line where the store fails.
    """
    family = Family(store, experiment, warn)
    if store is None:
        yield family
        return
    with good_manners(store):
        family.parent.start(experiment, name, params, {"bn.comparison": name})
        try:
            yield family
        except BaseException as error:
            family.parent.end("KILLED" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "FAILED")
            raise
        family.parent.end("FINISHED")
