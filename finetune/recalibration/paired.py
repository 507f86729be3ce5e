"""How sure a difference between two models is that saw the same labelled images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.batchnorm.moments import Float64

Z = 1.959963984540054
"""Two-sided 95 %."""

RESAMPLES = 2000
AT_ONCE = 100  # resamples of up to some 10,000 images each, held in memory together

Weighted = Callable[[Float64], Float64]
"""A metric of images that count several times: (resamples, n) weights -> (resamples,)."""


@dataclass(frozen=True)
class Difference:
    """after - before, with the bounds of its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} (95 % interval {self.low:+.3f} to {self.high:+.3f})"


def accuracy_difference(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Difference:
    """Of two models that are right or wrong about the same n images, (n,) each.

    Newcombe 1998, Statistics in Medicine 17, 2635-2650, method 10: Wilson's score intervals of both accuracies,
    joined under their correlation. It holds for few images and near 0 and 1, where McNemar's does not.
    """
    n = len(before)
    p_1, p_2 = float(after.mean()), float(before.mean())
    (l_1, u_1), (l_2, u_2) = wilson(p_1, n), wilson(p_2, n)
    phi = _correlation(after, before)
    low = (p_1 - l_1) ** 2 - 2 * phi * (p_1 - l_1) * (u_2 - p_2) + (u_2 - p_2) ** 2
    high = (u_1 - p_1) ** 2 - 2 * phi * (u_1 - p_1) * (p_2 - l_2) + (p_2 - l_2) ** 2
    value = p_1 - p_2
    return Difference(value, value - math.sqrt(max(low, 0.0)), value + math.sqrt(max(high, 0.0)))


def wilson(share: float, n: int) -> tuple[float, float]:
    """The score interval of a proportion (Wilson 1927, JASA 22, 209-212)."""
    middle = 2 * n * share + Z**2
    spread = Z * math.sqrt(Z**2 + 4 * n * share * (1 - share))
    return (middle - spread) / (2 * (n + Z**2)), (middle + spread) / (2 * (n + Z**2))


def bootstrapped(before: Weighted, after: Weighted, n: int, seed: int = 0) -> Difference:
    """Of any metric, by drawing the same images anew for both (Efron & Tibshirani 1993, percentile interval).

    The same seed gives the same interval.
    """
    random = np.random.default_rng(seed)
    draws = [
        random.multinomial(n, np.full(n, 1.0 / n), AT_ONCE).astype(np.float64)
        for _ in range(RESAMPLES // AT_ONCE)
    ]
    differences = np.concatenate([after(weights) - before(weights) for weights in draws])
    low, high = np.nanquantile(differences, (0.025, 0.975))
    once = np.ones((1, n))
    return Difference(float(after(once)[0] - before(once)[0]), float(low), float(high))


def _correlation(after: NDArray[np.bool_], before: NDArray[np.bool_]) -> float:
    """Of the two answers, with Newcombe's correction for continuity where it is positive."""
    both, neither = int((after & before).sum()), int((~after & ~before).sum())
    gained, lost = int((after & ~before).sum()), int((~after & before).sum())
    product = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    if product == 0:
        return 0.0
    top: float = both * neither - gained * lost
    if top > 0:
        top = max(top - len(after) / 2, 0.0)
    return top / math.sqrt(product)
