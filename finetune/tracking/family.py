"""A parent run with children, which many processes and many sittings add to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from typing import Any

from finetune.tracking.manners import good_manners
from finetune.tracking.run import Tracker

KEY = "cell"
"""Tag that tells the children of a family apart."""


class Family:
    """Made by `open_family`; does nothing where nothing is tracked, or the store has failed."""

    def __init__(self, store: str | None, experiment: str, warn: Callable[[str], None]) -> None:
        self.store, self.experiment, self._warn = store, experiment, warn
        self.parent = Tracker(store, warn)
        self._there: Set[str] = frozenset()

    def begin(self, name: str, params: Mapping[str, Any], earlier: str) -> None:
        """The parent, or the earlier one where the store knows it, with the children that it has."""
        self.parent.start(self.experiment, name, params, {"bn.comparison": name}, earlier)
        if self.parent.run_id == earlier:
            self._there = frozenset(self.parent.tags_of_children(KEY) or ())

    def add(
        self,
        key: str,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        metrics: Mapping[str, float],
    ) -> None:
        """A finished child; FAILED where it has no metrics. One whose key is there already is not added again."""
        if self.parent.store is None or key in self._there:
            return
        child = Tracker(self.parent.store, self._warn)
        family = {KEY: key, "mlflow.parentRunId": self.parent.run_id}
        child.start(self.experiment, name, params, {**tags, **family})
        child.log_final(metrics)
        child.end("FINISHED" if metrics else "FAILED")


@contextmanager
def open_family(
    store: str | None,
    experiment: str,
    name: str,
    params: Mapping[str, Any],
    warn: Callable[[str], None],
    earlier: str = "",
) -> Iterator[Family]:
    """A parent run, ended as FINISHED, or as KILLED when it was interrupted, or as FAILED.

    store: None tracks nothing. warn: gets one line where the store fails. earlier: id of the parent to go on with, if
    the store knows it; it has the same params.
    """
    family = Family(store, experiment, warn)
    if store is None:
        yield family
        return
    with good_manners(store):
        family.begin(name, params, earlier)
        try:
            yield family
        except BaseException as error:
            family.parent.end("KILLED" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "FAILED")
            raise
        family.parent.end("FINISHED")
