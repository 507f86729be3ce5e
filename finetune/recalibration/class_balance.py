"""Whether the calibration images show the classes in the mix that the statistics stand for.

Statistics of two classes out of ten make a network spread those two over all ten. That shows in what it predicts
*after* the recalibration: before it, a network whose camera changed may see one class everywhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from finetune.batchnorm.moments import Float64
from finetune.recalibration.predictions import agreement
from finetune.recalibration.skew import by_chance, class_shares, total_variation, uniform
from finetune.result import Check

SKEWED = 0.25
"""The total variation beyond that of a fair sample that is accepted. The bundled network, recalibrated on 512 images:

    python scripts/measure_gate.py    (two cores of an AMD EPYC, 2026-11-23; column "excess")

All ten classes under fog, contrast and brightness of severity 3: .04 or less; under fog and contrast of severity 5,
where three in ten predictions are right again: .20 and .23. Two of ten classes: .28 (fog), .40 (contrast), .48
(brightness), and .35 to .50 where nothing had changed and the accuracy fell from .925 to .73, .69 and .65. Before the
recalibration fog looked as skewed as two classes do: the predictions before decide nothing.
"""

NAMED = 3

CLASS_BALANCE = "class balance"
"""The name of the check."""


def class_balance(
    before: Float64, after: Float64, labels: NDArray[np.integer] | None, expected: Float64 | None
) -> Check:
    """Probabilities (images, classes) of the calibration images before and after, and their labels where known.

    expected: the share of each class, (classes,); all alike where not known.
    """
    count = after.shape[1]
    wanted = uniform(count) if expected is None else expected
    seen = after.argmax(axis=1) if labels is None else labels
    shares, chance = class_shares(seen, count), by_chance(wanted, len(after))
    apart = total_variation(shares, wanted)
    earlier = total_variation(class_shares(before.argmax(axis=1), count), wanted)
    what = "of the predictions" if labels is None else "of the labels"
    detail = (
        f"{apart:.2f} {what} would have to be of another class for the expected mix "
        f"({chance:.2f} by chance, at most {SKEWED:g} more accepted; predictions before {earlier:.2f}); "
        f"most frequent: {_most(shares)}; {agreement(before, after):.2f} of the predictions stayed"
    )
    passed = apart - chance <= SKEWED
    if not passed:
        detail += "; give images of all classes, or say with --class-shares in which mix they come in service"
    return Check(CLASS_BALANCE, passed, detail)


def _most(shares: Float64) -> str:
    top = np.argsort(-shares, kind="stable")[:NAMED]
    return ", ".join(f"class {number} {shares[number]:.2f}" for number in top)
