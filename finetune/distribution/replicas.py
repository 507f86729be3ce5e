"""The replicas of a training: how many there are, which are here, and what they tell each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from numpy.typing import NDArray

from finetune.batchnorm.moments import PopulationMoments, RunningStatistics
from finetune.distribution.cluster import Cluster, cluster_of
from finetune.distribution.data_parallel import devices_for, divided_among
from finetune.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

    from finetune.batchnorm.sites import BNSite
    from finetune.distribute import Distribute

Everyone = Callable[[NDArray[np.float64]], list[NDArray[np.float64]]]
"""The vectors of all workers, in their order, from that of this one."""


@dataclass(frozen=True, eq=False)
class Replicas:
    """All that take a share of each batch. strategy: None for a single one, and for those of JAX, among which
    Keras itself divides the batches. count: of all workers together.
    cluster: None where there is one process.

    held: by id() of a variable, what each replica of this process made of it in the last step of an epoch, where there
    are several here.
    """

    strategy: tf.distribute.Strategy | None = None
    count: int = 1
    cluster: Cluster | None = None
    devices: tuple[str, ...] = ()
    everyone: Everyone | None = None
    held: dict[int, Sequence[NDArray[np.floating]]] = field(default_factory=dict)

    @property
    def chief(self) -> bool:
        """Whether this process writes: the run folder, MLflow, the report, the model."""
        return self.cluster is None or self.cluster.chief

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know who asked for several."""
        if len(self.devices) != 1:
            return ()
        return (f"distribute: {self.devices[0]} is the only device here; the run is as without distribute",)

    @property
    def divided(self) -> bool:
        """Whether Keras itself divides the batches (finetune.distribution.data_parallel)."""
        return self.strategy is None and self.count > 1

    def scope(self) -> AbstractContextManager[None]:
        """Models of these replicas are made, trained and evaluated inside it."""
        return divided_among(self.devices) if self.divided else nullcontext()

    @property
    def workers(self) -> int:
        return len(self.cluster.workers) if self.cluster else 1

    @property
    def worker(self) -> int:
        """From 0."""
        return self.cluster.index if self.cluster else 0

    @property
    def here(self) -> range:
        """Places, among all replicas, of those in this process."""
        each = self.count // self.workers
        return range(self.worker * each, (self.worker + 1) * each)

    def gathered(self, vector: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Those of all workers, in their order; they may differ in length."""
        return self.everyone(vector) if self.everyone else [vector]

    def told(self, words: str) -> list[str]:
        """What each worker says, in their order."""
        spoken = np.frombuffer(words.encode(), np.uint8).astype(np.float64)
        return [bytes(said.astype(np.uint8)).decode() for said in self.gathered(spoken)]

    def combine(self, own: Sequence[PopulationMoments]) -> Sequence[PopulationMoments]:
        """The moments of all workers, merged in the same order by each of them, so that all have the same bits
        (finetune.batchnorm.layerwise.Combine)."""
        if self.workers == 1:
            return own
        flat = np.concatenate([np.r_[m.count, m.mean, m.m2] for m in own]) if own else np.empty(0)
        sizes = [m.mean.size for m in own]
        shares = [_unpacked(vector, sizes) for vector in self.gathered(flat)]
        return [PopulationMoments.pool(share[place] for share in shares) for place in range(len(own))]

    def from_chief(self, own: Sequence[PopulationMoments]) -> Sequence[PopulationMoments]:
        """What the chief measured, where all measured the same images: two machines may round differently."""
        flat = np.concatenate([np.r_[m.count, m.mean, m.m2] for m in own]) if own else np.empty(0)
        return _unpacked(self.gathered(flat)[0], [m.mean.size for m in own])

    def statistics(self, sites: Sequence[BNSite]) -> list[list[RunningStatistics]]:
        """What each of all replicas holds at the built sites."""
        if self.workers == 1:
            return [[_held(site, self.held, place) for site in sites] for place in range(self.count)]
        own = [(site.statistics.mean, site.statistics.variance) for site in sites]
        flat = np.concatenate([np.r_[pair].astype(np.float64) for pair in own]) if own else np.empty(0)
        sizes = [mean.size for mean, _ in own]
        return [
            [RunningStatistics(mean, variance) for mean, variance in _pairs(vector, sizes)]
            for vector in self.gathered(flat)
        ]


ALONE = Replicas()
"""One process on one device: everything is as Keras does it."""


def open_replicas(
    distribute: Distribute | None,
    environment: Mapping[str, str] = os.environ,
    hear: Callable[[str], None] = lambda words: None,
) -> Replicas:
    """Those that a recipe asks for, to be called before TensorFlow has done anything else. hear: what is waited for.

    Raises InputError where they are not there.
    """
    if distribute is None:
        return ALONE
    if distribute.strategy == "mirrored":
        return _mirrored(distribute.devices)
    if distribute.strategy == "data_parallel":
        devices = devices_for(distribute.devices)
        return Replicas(count=len(devices), devices=devices)
    return _multi_worker(cluster_of(environment), hear)


def _mirrored(asked: Sequence[str] | None) -> Replicas:
    _refuse_other_backends()
    import tensorflow as tf

    found = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()]
    missing = [name for name in asked or () if name not in found]
    if missing:
        raise InputError(
            f"distribute.devices: {', '.join(missing)}: not on this machine; found {', '.join(found)}"
        )
    devices = tuple(asked or [name for name in found if name.startswith("GPU:")] or found[:1])
    if len(devices) == 1:
        return Replicas(devices=devices)
    strategy = tf.distribute.MirroredStrategy([f"/{name}" for name in devices])
    return Replicas(strategy, len(devices), devices=devices)


def _multi_worker(cluster: Cluster, hear: Callable[[str], None]) -> Replicas:
    _refuse_other_backends()
    import tensorflow as tf

    from finetune.distribution.exchange import exchange_over

    if len(cluster.workers) == 1:
        return Replicas(cluster=cluster)
    hear(f"{cluster}: waiting for {', '.join(cluster.workers)}")
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    if strategy.num_replicas_in_sync != len(cluster.workers):
        raise InputError(
            f"distribute.strategy: {strategy.num_replicas_in_sync} devices for {len(cluster.workers)} workers; "
            "expected one each: start a worker for every GPU and show it that one with CUDA_VISIBLE_DEVICES"
        )
    return Replicas(strategy, len(cluster.workers), cluster, everyone=exchange_over(strategy))


def _refuse_other_backends() -> None:
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            f"distribute: tf.distribute needs the TensorFlow backend of Keras, found {keras.backend.backend()}; "
            "take strategy: data_parallel there"
        )


def _unpacked(vector: NDArray[np.float64], sizes: Sequence[int]) -> list[PopulationMoments]:
    ends = np.cumsum([1 + 2 * size for size in sizes])
    return [
        PopulationMoments(float(part[0]), part[1 : 1 + size], part[1 + size :])
        for part, size in zip(np.split(vector, ends[:-1]), sizes, strict=True)
    ]


def _pairs(vector: NDArray[np.float64], sizes: Sequence[int]) -> list[list[NDArray[np.float64]]]:
    ends = np.cumsum([2 * size for size in sizes])
    return [np.split(part, 2) for part in np.split(vector, ends[:-1])] if sizes else []


def _held(site: BNSite, held: Mapping[int, Sequence[Any]], place: int) -> RunningStatistics:
    now, layer = site.statistics, site.layer
    mean, variance = (held.get(id(variable)) for variable in (layer.moving_mean, layer.moving_variance))
    return RunningStatistics(
        now.mean if mean is None else mean[place], now.variance if variance is None else variance[place]
    )
