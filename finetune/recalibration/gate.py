"""What must hold before a recalibrated model is published.

Each check says what was found and what was expected; one that failed refuses the publication. They need no labels,
and are sharper with some.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.batchnorm.moments import Float64, RunningStatistics
from finetune.errors import DataError, ModelError
from finetune.recalibration.class_balance import class_balance
from finetune.recalibration.enough import enough_images, enough_positions
from finetune.recalibration.improvement import TOLERANCE, improvement
from finetune.recalibration.paired import Difference
from finetune.recalibration.predictions import as_probabilities
from finetune.recalibration.soundness import at_rest, finite
from finetune.result import Check


@dataclass(frozen=True)
class Labelled:
    """Outputs (n, classes) before and after on images with labels (n,), class numbers."""

    before: NDArray
    after: NDArray
    labels: NDArray[np.integer]


@dataclass(frozen=True)
class Evidence:
    """What the gate judges.

    before, after: outputs on the calibration images under the old and the new statistics, (images, classes) or None
    where they are no scores of classes. positions: by site path, values behind one channel for one image.
    statistics: by site path, those that are to be published. residual: largest distance between them and a fresh
    measurement, None where there was none. prior: N0. labels: of the calibration images, (images,), where known.
    labelled: outputs on labelled images, which may be the calibration images. expected: share of each class in
    service, (classes,); all alike where not known. loaders: what the format found out about the written copy.
    """

    images: int
    positions: Mapping[str, int]
    statistics: Mapping[str, RunningStatistics]
    residual: float | None
    before: NDArray | None
    after: NDArray | None
    prior: float = 0.0
    labels: NDArray[np.integer] | None = None
    labelled: Labelled | None = None
    expected: Float64 | None = None
    loaders: tuple[Check, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """checks: all of them. scores: by metric name, the labelled differences."""

    checks: tuple[Check, ...]
    scores: Mapping[str, Difference]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def reason(self) -> str:
        """In one line, why it is refused; empty where it is not."""
        return "; ".join(f"{check.name}: {check.detail}" for check in self.checks if not check.passed)


def judge(evidence: Evidence, tolerance: float = TOLERANCE) -> Verdict:
    """All checks, also after one has failed."""
    checks = [
        enough_images(evidence.images, evidence.prior),
        enough_positions(evidence.images, evidence.positions, evidence.prior),
        finite(evidence.statistics),
        *([] if evidence.residual is None else [at_rest(evidence.residual, evidence.statistics)]),
        *evidence.loaders,
    ]
    pair = _probabilities(evidence.before, evidence.after)
    if pair is not None:
        checks.append(class_balance(*pair, evidence.labels, _shares(evidence.expected, pair[0].shape[1])))
    scores: Mapping[str, Difference] = {}
    if evidence.labelled is not None:
        seen = evidence.labelled
        judged, scores = improvement(*_scored(seen), seen.labels, tolerance)
        checks += judged
    return Verdict(tuple(checks), scores)


def _shares(expected: Float64 | None, classes: int) -> Float64 | None:
    if expected is not None and len(expected) != classes:
        raise DataError(f"class shares: found {len(expected)}, the model has {classes} classes")
    return expected


def _scored(labelled: Labelled) -> tuple[Float64, Float64]:
    pair = _probabilities(labelled.before, labelled.after)
    if pair is None:
        raise ModelError(
            f"labels are of no use: expected scores of classes, (images, classes), found {labelled.after.shape}"
        )
    classes = pair[0].shape[1]
    if labelled.labels.max(initial=0) >= classes:
        raise DataError(
            f"labels: found class {labelled.labels.max()}, the model has {classes} classes, from 0"
        )
    return pair


def _probabilities(before: NDArray | None, after: NDArray | None) -> tuple[Float64, Float64] | None:
    if before is None or after is None:
        return None
    # together: whether a model puts out logits shows on either half
    both = as_probabilities(np.concatenate([before, after]))
    return None if both is None else (both[: len(before)], both[len(before) :])
