"""The temperature of a classifier: one number that divides its logits, so that it is as sure as it is right.

Guo et al. 2017, arXiv:1706.04599. It calibrates confidence, has nothing to do with the calibration set of BN sites, and
changes no prediction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray

LOWEST, HIGHEST = 0.05, 20.0
"""A fit ends here at the latest: images that are all told apart have no lowest cross-entropy at all."""


def fitted_temperature(probabilities: NDArray[np.float64], labels: NDArray[np.integer]) -> float:
    """That with the lowest cross-entropy of (n, classes) probabilities against (n,) labels.

    In the inverse temperature the cross-entropy is convex, so the one minimum between the ends is found.
    """
    from scipy.optimize import minimize_scalar

    logits, each = _logits(probabilities), np.arange(len(labels))

    def cross_entropy(inverse: float) -> float:
        scaled = logits * inverse
        return float(np.mean(_log_sum_exp(scaled) - scaled[each, labels]))

    found = minimize_scalar(cross_entropy, bounds=(1 / HIGHEST, 1 / LOWEST), method="bounded")
    return float(1 / found.x)


def at_temperature(probabilities: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """What they are once their logits are divided; float64 (n, classes)."""
    scaled = _logits(probabilities) / temperature
    return np.exp(scaled - _log_sum_exp(scaled)[:, None])


def divide_logits(model: keras.Model, temperature: float) -> None:
    """In the kernel and bias of the last layer, so that the model stays plain Keras."""
    last = model.layers[-1]
    last.set_weights([weight / temperature for weight in last.get_weights()])


def _logits(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Up to a constant an image. Probabilities of 0 in float32 were as small as that can say."""
    return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))


def _log_sum_exp(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    largest = logits.max(axis=1)
    return largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1))
