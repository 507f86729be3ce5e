"""Population moments in a file: so that several machines measure shares of one set, and a model carries its reference.

Merging what lies in files is exact for whatever each share measured by itself: `one_pass` on its own batches, or
the inputs of a network whose statistics stay. Layerwise statistics of one set need the shares to meet at every
cut (finetune.batchnorm.layerwise.Combine), since what one site stores decides what the next one sees.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetune.batchnorm.moments import PopulationMoments
from finetune.damaged_archive import DAMAGED

DIGEST = re.compile("[0-9a-f]{64}")
"""SHA-256, in hexadecimal."""

REFERENCE = "reference_statistics.npz"
"""Beside every exported model: what each site sees on the training images under the final weights. A model that was
trained with fixed running statistics does not store these, and whoever recalibrates it has to know them."""


@dataclass(frozen=True, eq=False)
class SavedMoments:
    """moments: by site path, in the order written. images: how many they were measured on. digests: a hash of the
    images of each share that is in it; none where that was not written down."""

    moments: Mapping[str, PopulationMoments]
    images: int
    digests: tuple[str, ...] = ()


def save(path: Path, saved: SavedMoments) -> None:
    """Write a .npz file: float64, to the bit."""
    moments = list(saved.moments.values())
    arrays: dict[str, Any] = {
        "paths": np.array(list(saved.moments), dtype=np.str_),
        "images": np.array(saved.images, dtype=np.int64),
        "digests": np.array(saved.digests, dtype=np.str_),
        "counts": np.array([m.count for m in moments], dtype=np.float64),
        **{f"mean_{i}": m.mean for i, m in enumerate(moments)},
        **{f"m2_{i}": m.m2 for i, m in enumerate(moments)},
    }
    with path.open("wb") as file:
        np.savez(file, **arrays)


def load(path: Path) -> SavedMoments:
    """What `save` wrote; never unpickles. Raises OSError, and ValueError where the file is another or damaged."""
    with path.open("rb") as file:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                moments = {str(site): _moments(arrays, number) for number, site in enumerate(arrays["paths"])}
                return SavedMoments(moments, int(arrays["images"]), _digests(arrays))
        # an OSError in here is one of an archive that points out of itself
        except DAMAGED as error:
            reason = str(error) or type(error).__name__
            raise ValueError(
                f"{path}: not a file of population moments, or a damaged one ({reason})"
            ) from error


def merge(shares: Iterable[SavedMoments]) -> SavedMoments:
    """The moments of all shares together. Raises ValueError where there is none and where they differ in sites."""
    pooled: dict[str, PopulationMoments] = {}
    images, digests = 0, list[str]()
    for number, share in enumerate(shares):
        images += share.images
        digests += share.digests
        _require_same_sites(pooled if number else share.moments, share.moments, number)
        pooled = {
            path: pooled[path].merge(moments) if number else moments
            for path, moments in share.moments.items()
        }
    if not pooled:
        raise ValueError("nothing to merge: expected one file of population moments or more")
    return SavedMoments(pooled, images, tuple(digests))


def _moments(arrays: Any, number: int) -> PopulationMoments:
    mean, m2 = (np.asarray(arrays[f"{name}_{number}"], np.float64) for name in ("mean", "m2"))
    if mean.ndim != 1 or mean.shape != m2.shape:
        raise ValueError(f"site {number}: mean {mean.shape}, m2 {m2.shape}")
    return PopulationMoments(float(arrays["counts"][number]), mean, m2)


def _digests(arrays: Any) -> tuple[str, ...]:
    """They go into records as they are, so that they are nothing but hashes. Older files have none."""
    digests = tuple(map(str, arrays["digests"])) if "digests" in arrays else ()
    for digest in digests:
        if not DIGEST.fullmatch(digest):
            raise ValueError(f"digests: expected 64 hexadecimal digits each, found {digest[:20]!r}")
    return digests


def _require_same_sites(
    pooled: Mapping[str, PopulationMoments], share: Mapping[str, PopulationMoments], number: int
) -> None:
    expected, found = ({path: m.mean.size for path, m in sites.items()} for sites in (pooled, share))
    if expected != found:
        apart = sorted({path for path, _ in expected.items() ^ found.items()})
        raise ValueError(
            f"share {number + 1} was measured on another network: it differs from those before it at {apart[0]}"
            + (f" and {len(apart) - 1} more sites" if len(apart) > 1 else "")
        )
