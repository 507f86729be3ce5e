"""Divide images of several classes each so that every part has its share of every class.

Iterative stratification (Sechidis, Tsoumakas & Vlahavas 2011, doi:10.1007/978-3-642-23808-6_10): the rarest class is
dealt first, for what is dealt later can no longer be put right for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def deal_flags(flags: NDArray[np.integer], shares: Sequence[float], seed: int) -> NDArray[np.int64]:
    """Flags (n, classes) of 0 and 1 -> the part of each image, (n,); part p gets about shares[p] of each class.

    The shares add up to 1. Every part but the first is to have an image of each class that has enough of them.
    """
    count, parts = len(flags), len(shares)
    order = np.random.default_rng(seed).permutation(count)
    room = np.asarray(shares, np.float64) * count
    wanted = np.maximum(np.outer(shares, flags.sum(axis=0)), 1.0)
    wanted[0] = flags.sum(axis=0) - wanted[1:].sum(axis=0)
    part, left = np.full(count, -1, np.int64), np.ones(count, bool)

    def put(image: int, into: int) -> None:
        part[image], left[image] = into, False
        wanted[into] -= flags[image]
        room[into] -= 1

    while (remaining := flags[left].sum(axis=0)).any():
        rarest = int(np.where(remaining > 0, remaining, count + 1).argmin())
        for image in [i for i in order if left[i] and flags[i, rarest]]:
            put(image, max(range(parts), key=lambda p: (wanted[p, rarest], room[p])))
    for image in [i for i in order if left[i]]:
        put(image, int(room.argmax()))
    return part
