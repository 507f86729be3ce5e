"""What images show: how far the data are from what the sites store, where it begins, and what is likely to help."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from finetune.batchnorm.moments import PopulationMoments, RunningStatistics
from finetune.batchnorm.shift import Shift, distance, shift
from finetune.batchnorm.targets import MeasuredSite
from finetune.doctor.finding import Finding
from finetune.recalibration.carried_reference import APART
from finetune.recalibration.scale_check import IMPLAUSIBLE, spread_ratio
from finetune.recalibration.scale_check import distance as divergence

MOVED = 0.3
"""Mean over sites of the shift of means, in standard deviations, or of spreads, |ln(sd / sd)|, that is worth a warning.

The first is that of the README's drift example; the second is a spread a third wider or narrower.
"""


def shifts_of(
    sites: Sequence[MeasuredSite],
    seen: Sequence[PopulationMoments],
    reference: Mapping[str, PopulationMoments] | None,
) -> dict[str, Shift]:
    """By path, in call order: from what the statistics stand for, the reference where there is one, to the images."""
    return {
        site.path: shift(
            reference[site.path].statistics() if reference else site.statistics,
            moments.statistics(),
            site.epsilon,
        )
        for site, moments in zip(sites, seen, strict=True)
    }


def wrong_scale(
    site: MeasuredSite, expected: RunningStatistics, seen: PopulationMoments, address: str
) -> Iterator[Finding]:
    """site: the first one. expected: what its statistics stand for."""
    found = seen.statistics()
    apart = divergence(expected, found, site.epsilon)
    if apart > IMPLAUSIBLE:
        yield Finding(
            "preprocessing",
            "serious",
            f"values at the first site {site.path} spread {spread_ratio(expected, found, site.epsilon):.3g} times as "
            f"wide as it expects (divergence {apart:.3g} nats; a change of camera comes to 42 at most)",
            "the images are not prepared as in training: 0..1 against 0..255, BGR against RGB, a mean not taken off",
            f"finetune drift {address} --images DIR --scale unit    # try none, unit, -1..1, imagenet, caffe",
            (site.path,),
        )


def far_from_stored(shifts: Mapping[str, Shift], repair: str) -> Iterator[Finding]:
    """shifts: of all sites, in call order. repair: the command that measures statistics anew."""
    ranked = sorted(shifts, key=lambda path: -shifts[path].mean)
    overall, spread = (
        float(np.mean([getattr(each, name) for each in shifts.values()])) for name in ("mean", "log_std")
    )
    if not (overall <= MOVED and spread <= MOVED):
        yield Finding(
            "shifted-data",
            "warning",
            f"the sites see values {overall:.2f} standard deviations from where they store them on average, and spread "
            f"by a factor of {np.exp(spread):.2f} (most: "
            f"{', '.join(f'{path} by {shifts[path].mean:.2f}' for path in ranked[:3])})",
            "it is largest early in the network, as after a change of camera or light: new statistics help"
            if _is_early(shifts)
            else "it grows with depth: the content changed as well, and new statistics may not be enough; retrain",
            repair,
            tuple(ranked),
        )


def _is_early(shifts: Mapping[str, Shift]) -> bool:
    """Whether the first third of the network moved further than the last third."""
    means = [each.mean for each in shifts.values()]
    third = max(len(means) // 3, 1)
    return float(np.mean(means[:third])) >= float(np.mean(means[-third:]))


def stored_is_not_population(
    sites: Sequence[MeasuredSite], reference: Mapping[str, PopulationMoments], carried: bool, address: str
) -> Iterator[Finding]:
    """reference: moments on the model's own training images. carried: they lie beside the model."""
    apart = {
        site.path: distance(site.statistics, reference[site.path].statistics(), site.epsilon)
        for site in sites
    }
    far = sorted((path for path in apart if apart[path] > APART), key=lambda path: -apart[path])
    if not far:
        return
    yield Finding(
        "stored-is-not-population",
        "note" if carried else "warning",
        f"at {len(far)} of {len(apart)} sites what is stored is more than {APART:g} standard deviations from the "
        f"model's own training images (most {far[0]} by {apart[far[0]]:,.1f})",
        "the network was trained under statistics that were held: harmless in service, ruinous if they are measured "
        "anew without a reference",
        f"finetune recalibrate {address} --images DIR    # matched to the reference beside the model"
        if carried
        else f"finetune recalibrate {address} --images DIR --reference-images TRAIN_DIR    # matched, never plain",
        tuple(far),
    )
