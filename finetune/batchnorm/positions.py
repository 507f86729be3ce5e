"""Effective positions: how many values stand behind one channel when a site normalises with the batch.

Of one value the spread is 0, and of few it is mostly noise (Wu & Johnson 2021, arXiv:2105.07576).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from finetune.batchnorm.naming import some

if TYPE_CHECKING:
    from finetune.batchnorm.sites import BNSite

FEWEST = 2
"""With fewer there is nothing to normalise with."""

ENOUGH = 16
"""With fewer a person is warned."""


def effective_positions(site: BNSite, batch_size: int) -> int:
    """batch x height x width behind one channel, in the call of the site that has fewest."""
    return site.fewest_positions * batch_size


def too_few_positions(sites: Sequence[BNSite], batch_size: int, key: str = "data.batch_size") -> list[str]:
    """Why sites in batch mode cannot train with batches of this size; empty where all can. key: what says the size."""
    few = [site for site in sites if effective_positions(site, batch_size) < FEWEST]
    if not few:
        return []
    return [
        f"{key}: batches of {batch_size} leave a single position behind each channel of "
        f"{_counted(few, batch_size, len(sites))}: nothing to normalise with; "
        f"use batches of at least {FEWEST} images ({ENOUGH} or more is better), "
        "or one of the policies freeze, recalibrate and affine for these sites"
    ]


def few_positions(sites: Sequence[BNSite], batch_size: int, key: str = "data.batch_size") -> list[str]:
    """A warning about sites in batch mode whose batch statistics are mostly noise; empty where there are none."""
    few = [site for site in sites if effective_positions(site, batch_size) < ENOUGH]
    if not few:
        return []
    wanted = max(-(-ENOUGH // site.fewest_positions) for site in few)
    return [
        f"few positions behind each channel of {_counted(few, batch_size, len(sites))}: their batch statistics "
        f"are mostly noise; use batches of at least {wanted} images ({key}), or one of the policies "
        "freeze, recalibrate and affine for these sites"
    ]


def _counted(few: Sequence[BNSite], batch_size: int, of: int) -> str:
    """`2 of 53 sites that normalise with the batch (a: 1, b: 1)`."""
    counts = some([f"{site.path}: {effective_positions(site, batch_size)}" for site in few])
    return f"{len(few)} of {of} sites that normalise with the batch ({counts})"
