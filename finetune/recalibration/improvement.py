"""What labels say about a recalibration: whether it did harm, and whether it repaired what it changed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from finetune.batchnorm.moments import Float64
from finetune.recalibration.labelled import differences, right
from finetune.recalibration.paired import Difference
from finetune.recalibration.predictions import agreement
from finetune.result import Check

TOLERANCE = 0.01
"""The fall in accuracy that is accepted where nothing is said: one point."""

CHANGED = 0.25
"""The share of changed predictions up to which a recalibration need not have repaired anything: a fair sample of an
unchanged camera changes less than one in a hundred on 512 images, one in eight on 16.

    python scripts/measure_gate.py    (two cores of an AMD EPYC, 2026-11-23; rows "no change", all classes)
"""

WORTH = 0.25
"""The accuracy that is gained for each prediction that changed. The bundled network on 512 images of all classes:

    python scripts/measure_gate.py    (two cores of an AMD EPYC, 2026-11-23; column "worth")

Fog .67, contrast .78, brightness .84 of severity 3; fog .33 and contrast .44 of severity 5; inverted images .03.
"""


def improvement(
    before: Float64, after: Float64, labels: NDArray[np.integer], tolerance: float
) -> tuple[tuple[Check, ...], Mapping[str, Difference]]:
    """The checks, and the differences they rest on by metric name; probabilities (n, classes) and labels (n,)."""
    scores = differences(before, after, labels)
    levels = float(right(before, labels).mean()), float(right(after, labels).mean())
    accuracy = scores["accuracy"]
    return (
        harmless(levels, scores, tolerance),
        repaired(levels, accuracy, 1.0 - agreement(before, after)),
    ), scores


def harmless(levels: tuple[float, float], scores: Mapping[str, Difference], tolerance: float) -> Check:
    """The accuracy does not fall by more than the tolerance."""
    accuracy = scores["accuracy"]
    others = "; ".join(
        f"{name.replace('_', ' ')} {scores[name]}"
        for name in ("balanced_accuracy", "expected_calibration_error")
    )
    detail = (
        f"{levels[0]:.3f} -> {levels[1]:.3f}, {accuracy}, a fall of at most {tolerance:g} accepted; {others}"
    )
    # a fall by exactly the tolerance is one of whole images, and not of the rounding of their share
    return Check("labelled accuracy", bool(accuracy.value >= -tolerance - 1e-9), detail)


def repaired(levels: tuple[float, float], accuracy: Difference, changed: float) -> Check:
    """Where many predictions change, enough of them become right: else statistics cannot undo what happened."""
    worth = accuracy.value / changed if changed else 0.0
    passed = changed <= CHANGED or (worth >= WORTH and accuracy.low > 0.0)
    detail = (
        f"{changed:.2f} of the predictions changed, accuracy {levels[0]:.3f} -> {levels[1]:.3f}, {accuracy}: "
        f"{worth:.2f} gained per change, at least {WORTH:g} expected where more than {CHANGED:g} change"
    )
    if not passed:
        detail += (
            "; running statistics cannot undo this, as they cannot undo inverted images: "
            "undo it before the model, or train anew"
        )
    return Check("a change that BN can repair", passed, detail)
