"""What the sites held at the turning points of a run: what the proof reads, long after it happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finetune.batchnorm.moments import RunningStatistics
from finetune.batchnorm.sites import BNSite

if TYPE_CHECKING:
    from finetune.batchnorm.measure import Measurement


@dataclass(frozen=True, eq=False)
class Reading:
    """All that one site holds at one moment."""

    path: str
    statistics: RunningStatistics
    affine: tuple[NDArray[np.floating], ...]


@dataclass(frozen=True, eq=False)
class Timeline:
    """The readings of all built sites at the turning points of a run, in the same order.

    pretrained: as loaded. started: after the policy's start, before the first stage. trained: when the
    running statistics had followed for the last time, after the last stage or before the frozen epochs at
    its end. finished: when all was done. start and finish are the measurements made after the first and
    after the third reading; `finish` is None as well where the measurement was not kept.
    trained_sites: paths of the sites inside what any stage trained. held: where epochs were frozen, the
    reading before them, after the finish. replicas: where several shared the batches, what each of them held in the
    end, site by site as in `trained`.
    """

    pretrained: Sequence[Reading]
    started: Sequence[Reading]
    trained: Sequence[Reading]
    finished: Sequence[Reading]
    start: Measurement | None
    finish: Measurement | None
    trained_sites: frozenset[str]
    held: Sequence[Reading] | None = None
    replicas: Sequence[Sequence[RunningStatistics]] | None = None


def read(sites: Sequence[BNSite]) -> tuple[Reading, ...]:
    """What every built site holds now."""
    return tuple(Reading(site.path, site.statistics, site.affine) for site in sites if site.built)
