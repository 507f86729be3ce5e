"""How good predicted probabilities are: how often right, how sure, and how well they rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune.calibration_error import expected_calibration_error
from finetune.distribution.data_parallel import undivided
from finetune.flag_scores import score_flags
from finetune.result import Evaluation

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

SMALLEST = 1e-7
"""Probabilities are clipped here before the logarithm, as Keras does, so that one sure mistake costs 16 nats."""


def evaluate(model: keras.Model, batches: tf.data.Dataset, classes: int) -> Evaluation:
    """Predict labelled batches, (images, labels), with a model that gives (batch, classes) probabilities."""
    return score(*predicted(model, batches), classes)


def evaluate_views(model: keras.Model, views: Sequence[tf.data.Dataset], classes: int) -> Evaluation:
    """Of the mean probabilities over several views of the same images, in the same order."""
    each = [predicted(model, batches) for batches in views]
    mean = np.mean([probabilities for probabilities, _ in each], axis=0)
    return score(mean, each[0][1], classes)


def predicted(
    model: keras.Model, batches: tf.data.Dataset
) -> tuple[NDArray[np.float64], NDArray[np.integer]]:
    """Probabilities (n, classes) and labels (n,) of labelled batches; of multi-label ones flags (n, classes)."""
    labels = np.concatenate([np.asarray(y) for _, y in batches.as_numpy_iterator()])
    with undivided():
        return np.asarray(model.predict(batches.map(_images_only), verbose=0), np.float64), labels


def _images_only(images: Any, _: Any) -> Any:
    return images


def score(probabilities: NDArray[np.float64], labels: NDArray[np.integer], classes: int) -> Evaluation:
    """All metrics of (n, classes) probabilities against (n,) labels, or against flags, see `score_flags`.

    Means over classes are those over the classes that occur. ROC AUC and average precision are of each class against
    the others; where one class alone occurs there is nothing to rank, and they are left out.
    """
    if labels.ndim == 2:
        return score_flags(probabilities, labels)
    from sklearn.metrics import confusion_matrix

    predicted = probabilities.argmax(axis=1)
    confusion = confusion_matrix(labels, predicted, labels=range(classes))
    occurring = confusion.sum(axis=1) > 0
    recalls = confusion.diagonal()[occurring] / confusion.sum(axis=1)[occurring]
    metrics: dict[str, float] = {
        "accuracy": float(np.mean(predicted == labels)),
        "balanced_accuracy": float(recalls.mean()),
        "cross_entropy": cross_entropy(probabilities, labels),
        "expected_calibration_error": expected_calibration_error(probabilities, labels),
        "macro_f1": float(f1_scores(confusion)[occurring].mean()),
        **ranking(probabilities, labels, np.flatnonzero(occurring)),
    }
    return Evaluation(metrics, tuple(tuple(int(n) for n in row) for row in confusion), len(labels))


def f1_scores(confusion: NDArray[np.integer]) -> NDArray[np.float64]:
    """The harmonic mean of precision and recall of each class, 0 where it neither occurs nor is predicted."""
    either = confusion.sum(axis=0) + confusion.sum(axis=1)
    scores: NDArray[np.float64] = 2 * confusion.diagonal() / np.maximum(either, 1)
    return scores


def ranking(
    probabilities: NDArray[np.float64], labels: NDArray[np.integer], occurring: NDArray[np.integer]
) -> dict[str, float]:
    """How far the images of a class stand before the others, when sorted by its probability; means over `occurring`."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    if len(occurring) < 2:
        return {}
    each = [(labels == number, probabilities[:, number]) for number in occurring]
    return {
        "roc_auc": float(np.mean([roc_auc_score(*one) for one in each])),
        "average_precision": float(np.mean([average_precision_score(*one) for one in each])),
    }


def cross_entropy(probabilities: NDArray[np.float64], labels: NDArray[np.integer]) -> float:
    """Mean negative logarithm of the probability given to the true class, in nats."""
    given = probabilities[np.arange(len(labels)), labels]
    return float(-np.mean(np.log(np.clip(given, SMALLEST, 1.0))))
