"""The reference statistics of a deployed model: found beside it, measured on source images, and carried on.

They say what each site hands on, and that is what a matched recalibration keeps. So they belong to the statistics
that are in force: a new version needs new ones, which describe the same thing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from finetune.batchnorm.matching import matched_affine
from finetune.batchnorm.moments import PopulationMoments, RunningStatistics
from finetune.batchnorm.moments_file import SavedMoments, load
from finetune.batchnorm.naming import some
from finetune.batchnorm.shift import distance
from finetune.batchnorm.targets import MeasuredSite, Reference
from finetune.errors import ModelError
from finetune.formats.deployed import DeployedSite
from finetune.recalibration.companions import reference_file

APART = 0.5
"""Standard deviations between stored and population statistics beyond which plain recalibration ruins a model."""


def carried(model: Path, sites: Sequence[DeployedSite]) -> SavedMoments | None:
    """The reference beside a model, by its site paths; None where there is none.

    Raises ModelError where it is damaged, or that of another network.
    """
    file = reference_file(model)
    if not file.is_file():
        return None
    try:
        saved = load(file)
    except (OSError, ValueError) as error:
        raise ModelError(f"{error}; restore it, or remove it to recalibrate without") from error
    return SavedMoments(_by_site(saved.moments, sites, file), saved.images)


def _by_site(moments: Reference, sites: Sequence[DeployedSite], file: Path) -> dict[str, PopulationMoments]:
    """Formats drop the names of models around a site: it is found by the rest of its path, never by its place."""
    found = {site.path: _named(site, moments) for site in sites}
    named = [names[0] for names in found.values() if len(names) == 1]
    lost = [path for path, names in found.items() if len(names) != 1]
    if lost or len(set(named)) != len(sites):
        raise ModelError(
            f"{file}: the reference statistics of another network, or under other names: nothing fits "
            f"{some(lost or sorted(found))}; remove the file, and measure a reference with --reference-images DIR"
        )
    return {path: moments[names[0]] for path, names in found.items()}


def _named(site: DeployedSite, moments: Reference) -> list[str]:
    return [
        name
        for name, each in moments.items()
        if f"/{name}".endswith(f"/{site.path}") or f"/{site.path}".endswith(f"/{name}")
        if each.mean.size == site.channels
    ]


def as_stored(sites: Sequence[MeasuredSite], known: SavedMoments) -> SavedMoments:
    """What is in force as its own reference: that of a model whose statistics are those of its images."""
    return SavedMoments(
        {
            site.path: PopulationMoments.of_batch(
                known.moments[site.path].count, site.statistics.mean, site.statistics.variance
            )
            for site in sites
        },
        known.images,
    )


def apart(sites: Sequence[MeasuredSite], reference: Reference) -> float:
    """The largest distance between what is stored and its reference, in standard deviations."""
    return max(distance(site.statistics, reference[site.path].statistics(), site.epsilon) for site in sites)


def carried_on(
    reference: SavedMoments, before: Mapping[str, RunningStatistics], sites: Sequence[MeasuredSite]
) -> SavedMoments:
    """The reference that belongs to the statistics in force now, so that each site hands on what it did before.

    before: by site path, the statistics that `reference` belongs to. Without a prior these are the moments measured
    on the calibration set, up to rounding.
    """
    return SavedMoments(
        {site.path: _transformed(reference.moments[site.path], before[site.path], site) for site in sites},
        reference.images,
    )


def _transformed(
    moments: PopulationMoments, before: RunningStatistics, site: MeasuredSite
) -> PopulationMoments:
    scale, offset = matched_affine(before, moments.statistics(), site.epsilon)
    now = site.statistics
    sd = np.sqrt(np.asarray(now.variance, np.float64) + site.epsilon)
    variance = np.maximum((scale * sd) ** 2 - site.epsilon, 0.0)
    return PopulationMoments.of_batch(moments.count, np.asarray(now.mean, np.float64) + offset * sd, variance)
