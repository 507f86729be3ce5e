"""What features are worth before anything is trained: a linear probe, and the classes of the nearest images."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.evaluate import score
from finetune.result import Evaluation

NEIGHBOURS = 20
STRENGTHS = (0.01, 0.1, 1.0, 10.0)
"""Inverse weights of the penalty on the probe, of which validation chooses."""


@dataclass(frozen=True)
class Labelled:
    """features: float (n, channels). labels: (n,)."""

    features: NDArray[np.floating]
    labels: NDArray[np.integer]


@dataclass(frozen=True)
class Probed:
    """nearest, linear: on the test features. strength: of the linear probe, chosen on validation."""

    nearest: Evaluation
    linear: Evaluation
    strength: float
    neighbours: int


def probe(train: Labelled, validation: Labelled, test: Labelled, classes: int) -> Probed:
    """Fit both on `train` and score them on `test`; the probe's penalty is chosen by the cross-entropy on `validation`.

    nearest: the 20 nearest by cosine, each with the weight of its nearness (Wu et al. 2018, arXiv:1805.01978), fewer
    where there are fewer training images. linear: multinomial logistic regression on features of unit variance.
    """
    neighbours = min(NEIGHBOURS, len(train.labels))
    nearest = _probabilities(_nearest(train, neighbours), test.features, classes)
    fitted = [(strength, _linear(train, strength)) for strength in STRENGTHS]
    losses = [
        score(_probabilities(model, validation.features, classes), validation.labels, classes).metrics[
            "cross_entropy"
        ]
        for _, model in fitted
    ]
    strength, linear = fitted[int(np.argmin(losses))]
    return Probed(
        nearest=score(nearest, test.labels, classes),
        linear=score(_probabilities(linear, test.features, classes), test.labels, classes),
        strength=strength,
        neighbours=neighbours,
    )


def _nearest(train: Labelled, neighbours: int) -> Any:
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer

    # on the unit sphere the nearest by distance are the nearest by cosine
    model = make_pipeline(Normalizer(), KNeighborsClassifier(neighbours, weights="distance"))
    return model.fit(train.features, train.labels)


def _linear(train: Labelled, strength: float) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
    with warnings.catch_warnings():
        # a baseline needs no last digit
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(train.features, train.labels)


def _probabilities(model: Any, features: NDArray[np.floating], classes: int) -> NDArray[np.float64]:
    """(n, classes); classes without a training image have 0."""
    found = np.zeros((len(features), classes))
    found[:, model.classes_] = model.predict_proba(features)
    return found
