"""Mean and variance of a population, accumulated as (count, mean, M2) in float64 (Chan et al. 1983)."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]

FAR_FROM_ZERO = 100.0
"""|mean| / sd beyond which the rounding of float32 shows in the variance: such a site is measured again in float64."""


@dataclass(frozen=True, eq=False)
class RunningStatistics:
    """What a site normalises with at inference: mean and biased variance, (channels,), in the site's own dtype."""

    mean: NDArray[np.floating]
    variance: NDArray[np.floating]

    def identical(self, other: RunningStatistics) -> bool:
        """Equal bit for bit; NaN equals the same NaN."""
        return (
            self.mean.tobytes() == other.mean.tobytes()
            and self.variance.tobytes() == other.variance.tobytes()
        )


@dataclass(frozen=True, eq=False)
class PopulationMoments:
    """Moments of all values behind each channel of one site.

    count: how many values a channel has seen (positions). mean, m2: (channels,) float64, m2 being the
    sum of squared distances from the mean. Merging is associative and commutative up to rounding, so
    how the images are batched, ordered or sharded does not matter.
    """

    count: float
    mean: Float64
    m2: Float64

    @classmethod
    def of_batch(cls, count: float, mean: ArrayLike, variance: ArrayLike) -> PopulationMoments:
        """From one batch's count, mean and biased variance."""
        return cls(
            float(count), np.asarray(mean, np.float64), np.asarray(variance, np.float64) * float(count)
        )

    @classmethod
    def pool(cls, parts: Iterable[PopulationMoments]) -> PopulationMoments:
        """The moments of all parts together; there must be at least one."""
        return functools.reduce(cls.merge, parts)

    def merge(self, other: PopulationMoments) -> PopulationMoments:
        """The law of total variance in the form that does not cancel (Chan, Golub & LeVeque 1983)."""
        # a part without a value, as a batch that is masked as a whole, has no mean
        if other.count == 0:
            return self
        if self.count == 0:
            return other
        count = self.count + other.count
        apart = other.mean - self.mean
        share = other.count / count
        return PopulationMoments(
            count, self.mean + apart * share, self.m2 + other.m2 + apart**2 * self.count * share
        )

    @property
    def variance(self) -> Float64:
        """The biased population variance, (channels,): Keras' convention."""
        return self.m2 / self.count

    def far_from_zero(self, epsilon: float) -> bool:
        """Whether some channel's mean is so many standard deviations from zero that float32 does not resolve its
        variance, epsilon inside it."""
        return bool(np.any(np.abs(self.mean) > FAR_FROM_ZERO * np.sqrt(self.variance + epsilon)))

    def statistics(self) -> RunningStatistics:
        """As running statistics, still in float64."""
        return RunningStatistics(self.mean, self.variance)
