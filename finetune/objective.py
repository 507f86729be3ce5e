"""What a stage minimises and counts: cross-entropy and accuracy, of labels that are numbers or shares of classes.

Smoothed and mixed labels are shares, those of validation are always numbers, so that losses of stages can be compared.
Multi-label images have flags, 0 or 1 for each class.
"""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

Labels = Literal["numbers", "shares", "flags"]
"""What the training labels are."""


def objective_of(labels: Labels) -> dict[str, Any]:
    """Loss and metric, as `compile` takes them. But for shares they are Keras' own, so that a saved model loads without
    the toolkit."""
    if labels == "shares":
        return {"loss": Crossentropy(), "metrics": [accuracy]}
    if labels == "flags":
        return {
            "loss": "binary_crossentropy",
            "metrics": [keras.metrics.BinaryAccuracy(name="accuracy")],
        }
    return {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}


def smoothed(labels: Any, classes: int, smoothing: float) -> Any:
    """int32 (batch,) or shares float32 (batch, classes) -> shares, of which `smoothing` is spread over all classes
    alike (Szegedy et al. 2016, arXiv:1512.00567)."""
    shares = labels if len(labels.shape) == 2 else ops.one_hot(labels, classes, dtype="float32")
    return (1.0 - smoothing) * shares + smoothing / classes


class Crossentropy(keras.losses.Loss):
    """Of probabilities (batch, classes), against class numbers (batch,) or shares (batch, classes)."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        if len(y_true.shape) == len(y_pred.shape):
            return keras.losses.categorical_crossentropy(y_true, y_pred)
        return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)


def accuracy(y_true: Any, y_pred: Any) -> Any:
    """Whether the most probable class is the true one, or the one with the largest share."""
    true = ops.argmax(y_true, -1) if len(y_true.shape) == len(y_pred.shape) else ops.cast(y_true, "int64")
    return ops.cast(ops.equal(ops.cast(true, "int64"), ops.cast(ops.argmax(y_pred, -1), "int64")), "float32")
