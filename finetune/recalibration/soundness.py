"""Whether the new statistics are numbers a site can divide by, and those that the images ask for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from finetune.batchnorm.moments import RunningStatistics
from finetune.batchnorm.naming import some
from finetune.result import Check

ROUNDING = 1e-3
"""In standard deviations, or of a ratio of variances: a thousand times what float32 resolves at 53 sites in depth, and
far below what another set of images is away. A recalibration that was not exact shows here."""

HALF_PRECISION = 3e-2
"""The same where statistics are stored in 16 bits: bfloat16 has steps of 1/128, and a site may sum several."""


def finite(statistics: Mapping[str, RunningStatistics]) -> Check:
    """Means are finite, variances finite and not negative; a channel without spread is let through and counted."""
    broken = [path for path, reading in statistics.items() if not _sound(reading)]
    still = sum(int(np.count_nonzero(np.asarray(r.variance, np.float64) == 0)) for r in statistics.values())
    of = sum(len(reading.variance) for reading in statistics.values())
    if broken:
        detail = (
            f"not finite, or a variance below 0, at {len(broken)} of {len(statistics)} sites: {some(broken)}"
        )
    else:
        detail = f"{of} channels at {len(statistics)} sites" + (
            f", {still} of them without spread" if still else ""
        )
    return Check("finite and positive variances", not broken and still < of, detail)


def at_rest(residual: float, statistics: Mapping[str, RunningStatistics]) -> Check:
    """A fresh measurement under the new statistics asks for these very statistics."""
    half = any(np.asarray(reading.mean).dtype.itemsize == 2 for reading in statistics.values())
    limit = HALF_PRECISION if half else ROUNDING
    detail = f"a fresh measurement is {residual:.1e} away, at most {limit:g} expected"
    return Check("residual", bool(residual <= limit), detail)


def _sound(reading: RunningStatistics) -> bool:
    mean, variance = (np.asarray(values, np.float64) for values in (reading.mean, reading.variance))
    return bool(np.isfinite(mean).all() and np.isfinite(variance).all() and (variance >= 0).all())
