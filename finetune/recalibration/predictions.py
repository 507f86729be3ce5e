"""What a deployed model puts out, as probabilities of classes, whatever it puts out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from finetune.batchnorm.moments import Float64

SUMS_TO_ONE = 1e-2
"""How far the outputs for one image may sum up from 1 and still be probabilities; half precision misses by 1e-3."""


def as_probabilities(outputs: NDArray) -> Float64 | None:
    """Outputs (n, classes), or (n,) and (n, 1) for two classes -> (n, classes or 2); None for anything else.

    Outputs that are no probabilities are taken for logits. None too where one is not finite: there is no class then;
    and where all lie in [0, 1] and those of an image do not add up to 1: then every class has a probability of its own
    (a multi-label model), and an image has no one class.
    """
    values = np.asarray(outputs, np.float64)
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        return None
    within = values.min() >= 0.0 and values.max() <= 1.0 + SUMS_TO_ONE
    if values.shape[1] == 1:
        second = values if within else 1.0 / (1.0 + np.exp(-np.clip(values, -700, 700)))
        return np.hstack([1.0 - second, second])
    if within:
        return values if np.abs(values.sum(axis=1) - 1.0).max() <= SUMS_TO_ONE else None
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    probabilities: Float64 = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def agreement(before: Float64, after: Float64) -> float:
    """The share of images on which both have the same class."""
    return float(np.mean(before.argmax(axis=1) == after.argmax(axis=1)))
