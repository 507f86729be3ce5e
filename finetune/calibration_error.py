"""How far confidence and accuracy are apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def expected_calibration_error(
    probabilities: NDArray[np.float64], labels: NDArray[np.integer], bins: int = 15
) -> float:
    """Of (n, classes) and (n,): mean distance of confidence and accuracy over equal-width bins of confidence,
    weighted by their sizes (Guo et al. 2017, arXiv:1706.04599)."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    # bins are open below and closed above: a confidence of exactly 1 belongs to the last one
    places = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    sizes = np.bincount(places, minlength=bins)
    gaps = np.abs(
        np.bincount(places, weights=confidence, minlength=bins)
        - np.bincount(places, weights=correct, minlength=bins)
    )
    return float(gaps.sum() / sizes.sum())
