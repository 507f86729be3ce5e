"""Whether a sample has the class mix that the running statistics stand for, judged by what is predicted on it.

Statistics of two classes out of ten make the network spread those two over all ten.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from finetune.batchnorm.moments import Float64


def class_shares(classes: NDArray[np.integer], count: int) -> Float64:
    """(n,) class numbers -> the share of each of `count` classes, (count,)."""
    shares: Float64 = np.bincount(classes, minlength=count) / len(classes)
    return shares


def uniform(count: int) -> Float64:
    return np.full(count, 1.0 / count)


def total_variation(shares: Float64, expected: Float64) -> float:
    """Half the sum of the distances: the share of images that would have to be of another class; 0 to 1."""
    return float(0.5 * np.abs(shares - expected).sum())


def excess(shares: Float64, expected: Float64, images: int) -> float:
    """By how much the total variation is larger than that of a fair sample of as many images, on average."""
    return total_variation(shares, expected) - by_chance(expected, images)


def by_chance(expected: Float64, images: int) -> float:
    """The mean total variation between the shares in a random sample and those it is drawn from.

    By the mean absolute deviation of a binomial variable in closed form (de Moivre 1730; Diaconis & Zabell 1991,
    doi:10.1214/ss/1177011699): E|X - np| = 2 (m + 1) C(n, m + 1) p^(m + 1) (1 - p)^(n - m) with m = floor(np).
    """
    return 0.5 * sum(_mean_deviation(images, float(p)) for p in expected) / images


def _mean_deviation(n: int, p: float) -> float:
    if p <= 0.0 or p >= 1.0:
        return 0.0
    m = min(math.floor(n * p), n - 1)
    ways = math.lgamma(n + 1) - math.lgamma(m + 1) - math.lgamma(n - m)  # of (m + 1) C(n, m + 1)
    return 2.0 * math.exp(ways + (m + 1) * math.log(p) + (n - m) * math.log1p(-p))
