"""A wrong scale of the images shows at the first site: its input moves further than any camera moves it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from finetune.batchnorm.moments import RunningStatistics
from finetune.recalibration.preprocessing import WORDS, Scale

IMPLAUSIBLE = 100.0
"""Symmetric Kullback-Leibler divergence in nats, the median over channels.

    python scripts/measure_gate.py --scales    (two cores of an AMD EPYC, 2026-11-23)

At the first site of the bundled network 35 changes of the camera come to 42 at most, whatever scale it expects;
values of 0..255 where smaller ones are expected, or the reverse, to 2,080 at least.
"""

FITS_BETTER = 50.0
"""Scales that are near each other, as unit and -1..1, differ no more than a change of the camera does; then another
one is believed where it is nearer by this factor."""

NEAR = 1.0
"""Up to here nothing is said: statistics this near are those of another camera, if not of another day."""


def implausible(
    stored: RunningStatistics, measured: Mapping[Scale, RunningStatistics], used: Scale, epsilon: float
) -> str | None:
    """A warning where the scale that is used does not fit the statistics that the first site keeps, or None.

    stored: the reference of the first site where known, or its running statistics. measured: moments of its input on
    some images, by the scale in which they were fed: `used` and, for a suggestion, all others that could be meant.
    """
    apart = {scale: distance(stored, found, epsilon) for scale, found in measured.items()}
    best = min(apart, key=apart.__getitem__)
    far = apart[used] > IMPLAUSIBLE
    if not far and not (apart[used] > NEAR and apart[used] > FITS_BETTER * apart[best]):
        return None
    ratio = spread_ratio(stored, measured[used], epsilon)
    found = (
        f"scale {used} is implausible: values at the first site spread {ratio:.3g} times as wide as stored"
    )
    if best == used or apart[best] > IMPLAUSIBLE:
        return f"{found}, and no other scale fits; check how images are prepared before the model"
    return f"{found}; scale {best} ({WORDS[best]}) fits best: say --scale {best}"


def distance(stored: RunningStatistics, measured: RunningStatistics, epsilon: float) -> float:
    """The median over channels of the symmetric divergence of two Gaussians, epsilon inside every variance."""
    mean_0, mean_1 = (np.asarray(reading.mean, np.float64) for reading in (stored, measured))
    variance_0, variance_1 = (
        np.asarray(reading.variance, np.float64) + epsilon for reading in (stored, measured)
    )
    squared = (mean_1 - mean_0) ** 2
    each = 0.5 * ((variance_0 + squared) / variance_1 + (variance_1 + squared) / variance_0 - 2.0)
    middle = float(np.median(each))
    return middle if np.isfinite(middle) else float("inf")


def spread_ratio(stored: RunningStatistics, measured: RunningStatistics, epsilon: float) -> float:
    """The median over channels of sd measured / sd stored."""
    variances = [np.asarray(reading.variance, np.float64) + epsilon for reading in (measured, stored)]
    return float(np.median(np.sqrt(variances[0] / variances[1])))
