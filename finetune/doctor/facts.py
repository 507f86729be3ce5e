"""What every site says of itself, whether it lives in Keras or lies in a file: the rows of the inventory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finetune.batchnorm.moments import RunningStatistics
from finetune.batchnorm.sites import BNSite
from finetune.batchnorm.targets import MeasuredSite


@dataclass(frozen=True, eq=False)
class SiteFacts:
    """One site. calls: of one forward pass. statistics: as stored, (channels,); dtype: in which they are.

    What a file does not say is None: momentum; follows, whether `fit` moves the statistics; positions, values behind
    a channel for one image in the call that has fewest.
    """

    path: str
    channels: int
    epsilon: float
    calls: int
    statistics: RunningStatistics
    dtype: str
    momentum: float | None = None
    follows: bool | None = None
    positions: int | None = None


def of_live(site: BNSite) -> SiteFacts:
    """Of a site that is built."""
    return SiteFacts(
        path=site.path,
        channels=site.channels,
        epsilon=site.epsilon,
        calls=site.calls,
        statistics=site.statistics,
        dtype=str(site.layer.moving_mean.dtype),
        momentum=site.momentum,
        follows=site.mode == "batch",
        positions=site.fewest_positions if site.calls else None,
    )


def of_file(site: MeasuredSite) -> SiteFacts:
    """Of a site that one inference runs."""
    statistics = site.statistics
    return SiteFacts(
        path=site.path,
        channels=int(np.size(statistics.mean)),
        epsilon=site.epsilon,
        calls=1,
        statistics=statistics,
        dtype=str(np.asarray(statistics.mean).dtype),
    )
