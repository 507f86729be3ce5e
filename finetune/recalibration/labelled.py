"""Accuracy, balanced accuracy and calibration error before and after, on the same labelled images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from finetune.batchnorm.moments import Float64
from finetune.recalibration.paired import Difference, Weighted, accuracy_difference, bootstrapped

BINS = 15


def differences(before: Float64, after: Float64, labels: NDArray[np.integer]) -> dict[str, Difference]:
    """By metric name, of probabilities (n, classes) before and after and labels (n,)."""
    n = len(labels)
    return {
        "accuracy": accuracy_difference(right(before, labels), right(after, labels)),
        "balanced_accuracy": bootstrapped(balanced(before, labels), balanced(after, labels), n),
        "expected_calibration_error": bootstrapped(
            calibration_error(before, labels), calibration_error(after, labels), n
        ),
    }


def right(probabilities: Float64, labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    hits: NDArray[np.bool_] = probabilities.argmax(axis=1) == labels
    return hits


def balanced(probabilities: Float64, labels: NDArray[np.integer]) -> Weighted:
    """The mean recall of the classes that occur among the images drawn."""
    hits = right(probabilities, labels)
    members = (labels[:, None] == np.unique(labels)).astype(np.float64)

    def metric(weights: Float64) -> Float64:
        sizes = weights @ members
        with np.errstate(invalid="ignore"):
            recalls = (weights @ (members * hits[:, None])) / sizes
        mean: Float64 = np.nanmean(recalls, axis=1)
        return mean

    return metric


def calibration_error(probabilities: Float64, labels: NDArray[np.integer]) -> Weighted:
    """As finetune.evaluate.expected_calibration_error, of images that count several times."""
    confidence, hits = probabilities.max(axis=1), right(probabilities, labels)
    places = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    apart = (confidence - hits)[:, None] * (places[:, None] == np.arange(BINS))

    def metric(weights: Float64) -> Float64:
        error: Float64 = np.abs(weights @ apart).sum(axis=1) / weights.sum(axis=1)
        return error

    return metric
