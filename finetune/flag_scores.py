"""How good probabilities are where an image shows several classes, or none: every class is a question of its own.

Flags are labels (n, classes) of 0 and 1. The answer is yes above a probability of one half.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from finetune.calibration_error import expected_calibration_error
from finetune.result import ClassCounts, Evaluation

SMALLEST = 1e-7
"""Probabilities are clipped to [this, 1 - this] before the logarithm, as Keras does."""


def score_flags(probabilities: NDArray[np.float64], flags: NDArray[np.integer]) -> Evaluation:
    """All metrics of (n, classes) probabilities against (n, classes) flags.

    Macro F1 is the mean over the classes that occur; balanced accuracy, ROC AUC and average precision are means over
    those that some images show and others do not. Where there is no such class they are left out.
    """
    shown, told = flags.astype(bool), probabilities > 0.5
    metrics = {
        "accuracy": float(np.mean(told == shown)),
        "exact_match": float(np.mean((told == shown).all(axis=1))),
        "cross_entropy": binary_cross_entropy(probabilities, flags),
        "expected_calibration_error": _calibration_error(probabilities, shown),
        **_f1(told, shown),
        **_over_classes(probabilities, told, shown),
    }
    counts = zip((told & shown).sum(0), (~told & shown).sum(0), (told & ~shown).sum(0), strict=True)
    classes = tuple(ClassCounts(int(found), int(missed), int(false)) for found, missed, false in counts)
    return Evaluation(metrics, (), len(flags), classes)


def binary_cross_entropy(probabilities: NDArray[np.float64], flags: NDArray[np.integer]) -> float:
    """Mean over images and classes of the negative logarithm of the probability given to what is so, in nats."""
    given = np.where(flags.astype(bool), probabilities, 1.0 - probabilities)
    return float(-np.mean(np.log(np.clip(given, SMALLEST, 1.0 - SMALLEST))))


def entropy_of_guessing(flags: NDArray[np.integer]) -> float:
    """The cross-entropy of whoever knows how frequent each class is, and nothing of the images; in nats."""
    shares = flags.mean(axis=0)
    return binary_cross_entropy(np.broadcast_to(shares, flags.shape), flags)


def _calibration_error(probabilities: NDArray[np.float64], shown: NDArray[np.bool_]) -> float:
    """Over all answers, each with the probability of the side that it takes."""
    yes = probabilities.ravel()
    return expected_calibration_error(np.stack([1.0 - yes, yes], axis=1), shown.ravel().astype(np.int64))


def _f1(told: NDArray[np.bool_], shown: NDArray[np.bool_]) -> dict[str, float]:
    both, either = (told & shown).sum(0), told.sum(0) + shown.sum(0)
    occurring = shown.any(axis=0)
    if not occurring.any():
        return {}
    return {
        "macro_f1": float(np.mean(2 * both[occurring] / either[occurring])),
        "micro_f1": float(2 * both.sum() / either.sum()),
    }


def _over_classes(
    probabilities: NDArray[np.float64], told: NDArray[np.bool_], shown: NDArray[np.bool_]
) -> dict[str, float]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    divided = np.flatnonzero(shown.any(axis=0) & ~shown.all(axis=0))
    if not divided.size:
        return {}
    rates = [(told[shown[:, c], c].mean() + 1.0 - told[~shown[:, c], c].mean()) / 2 for c in divided]
    return {
        "balanced_accuracy": float(np.mean(rates)),
        "roc_auc": float(np.mean([roc_auc_score(shown[:, c], probabilities[:, c]) for c in divided])),
        "average_precision": float(
            np.mean([average_precision_score(shown[:, c], probabilities[:, c]) for c in divided])
        ),
    }
