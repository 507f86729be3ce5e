"""The BN sites of a SavedModel: the calls that share their variables, and what these hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from finetune.batchnorm.moments import RunningStatistics
from finetune.formats.live_variable import LiveVariable
from finetune.formats.site_call import SiteCall

MEANS = ("moving_mean", "running_mean", "population_mean", "pop_mean")
VARIANCES = (
    "moving_variance",
    "moving_var",
    "running_var",
    "running_variance",
    "population_variance",
    "pop_var",
)
"""How people call their statistics: only to find those that no site uses, never to find a site."""


@dataclass(eq=False)
class SavedSite:
    """One pair of variables and everything that normalises with it, in the graph's order."""

    path: str
    channels: int
    epsilon: float
    calls: int
    places: Sequence[SiteCall]
    mean: LiveVariable
    variance: LiveVariable

    @property
    def statistics(self) -> RunningStatistics:
        """In force; in the file's dtype."""
        return RunningStatistics(np.ravel(self.mean.values), np.ravel(self.variance.values))

    def store(self, statistics: RunningStatistics) -> None:
        """Put in force, rounded to the file's dtype; the file stays as it is."""
        self.mean.assign(statistics.mean)
        self.variance.assign(statistics.variance)


def group(calls: Sequence[SiteCall], variables: Mapping[str, LiveVariable]) -> list[SavedSite]:
    """Sites in the order of their first calls."""
    shared: dict[tuple[str, ...], list[SiteCall]] = {}
    for call in calls:
        shared.setdefault((variables[call.mean].keys[0], variables[call.variance].keys[0]), []).append(call)
    paths = _paths([variables[places[0].mean].name for places in shared.values()])
    return [
        SavedSite(
            path=path,
            channels=places[0].channels,
            epsilon=places[0].epsilon,
            calls=len(places),
            places=tuple(places),
            mean=variables[places[0].mean],
            variance=variables[places[0].variance],
        )
        for path, places in zip(paths, shared.values(), strict=True)
    ]


def _paths(names: Sequence[str]) -> list[str]:
    """Variables' names without their last part; whole, or numbered, where these would not tell them apart."""
    short = [name.removesuffix(":0").rpartition("/")[0] for name in names]
    paths = [
        path if path and short.count(path) == 1 else name for path, name in zip(short, names, strict=True)
    ]
    return [
        path if paths.count(path) == 1 else f"{path}_{paths[:number].count(path) + 1}"
        for number, path in enumerate(paths)
    ]


def unused_statistics(names: Iterable[str]) -> tuple[str, ...]:
    """Paths of those variables that are called as statistics are; names: of all that belong to no site."""
    statistics = (name.removesuffix(":0") for name in names)
    return tuple(dict.fromkeys(name.rpartition("/")[0] or name for name in statistics if _is_statistic(name)))


def _is_statistic(name: str) -> bool:
    return name.rpartition("/")[2] in (*MEANS, *VARIANCES)
