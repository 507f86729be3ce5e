"""How far running statistics moved between two readings of the same site."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finetune.batchnorm.moments import RunningStatistics


@dataclass(frozen=True)
class Shift:
    """The move of one site's running statistics, as means over its channels.

    mean: |mean after - mean before|, in standard deviations of the earlier reading.
    log_std: |ln(sd after / sd before)|: 0.69 is a factor of two either way.
    kl: symmetric Kullback-Leibler divergence of the two Gaussians, in nats, the sum of both directions
        (the measure of AdaBN, Li et al. 2016, arXiv:1603.04779).
    """

    mean: float
    log_std: float
    kl: float


def shift(before: RunningStatistics, after: RunningStatistics, epsilon: float) -> Shift:
    """Compare two readings of one site; `epsilon` is the site's own and is inside every variance.

    With it a channel that never fires (variance 0) has the spread that the site itself divides by,
    so that the three numbers stay finite wherever the statistics are.
    """
    mean_0, mean_1 = (np.asarray(r.mean, np.float64) for r in (before, after))
    variance_0, variance_1 = (np.asarray(r.variance, np.float64) + epsilon for r in (before, after))
    squared_distance = (mean_1 - mean_0) ** 2
    kl = 0.5 * (
        (variance_0 + squared_distance) / variance_1 + (variance_1 + squared_distance) / variance_0 - 2.0
    )
    return Shift(
        mean=float(np.mean(np.sqrt(squared_distance / variance_0))),
        log_std=float(np.mean(np.abs(0.5 * np.log(variance_1 / variance_0)))),
        kl=float(np.mean(kl)),
    )


def distance(stored: RunningStatistics, measured: RunningStatistics, epsilon: float) -> float:
    """The largest distance of any channel: of means in measured standard deviations, or of variances
    as |stored / measured - 1|, `epsilon` inside every variance. 0 where they agree; NaN counts as infinite."""
    mean_0, mean_1 = (np.asarray(r.mean, np.float64) for r in (stored, measured))
    variance_0, variance_1 = (np.asarray(r.variance, np.float64) + epsilon for r in (stored, measured))
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.abs(mean_0 - mean_1) / np.sqrt(variance_1)
        variances = np.abs(variance_0 / variance_1 - 1.0)
    worst = float(np.max([means.max(initial=0.0), variances.max(initial=0.0)]))
    return float("inf") if np.isnan(worst) else worst
