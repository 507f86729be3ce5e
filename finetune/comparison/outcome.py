"""What came of one cell, as plain values that a line of the journal holds."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Literal

Metric = Literal["accuracy", "balanced_accuracy", "macro_f1", "roc_auc", "average_precision"]
"""What policies are compared by; those but accuracy are means over classes, so that a rare one counts as much."""


@dataclass(frozen=True)
class Outcome:
    """failed: in one line, why there are no numbers; empty where there are. metrics: on the test split, as
    `finetune run` has them. validation_loss, validation_accuracy, validation_metrics: of the weights that were kept;
    journals of earlier versions lack the last. verified: the proof held. seconds: of all of it."""

    failed: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    validation_loss: float = float("inf")
    validation_accuracy: float = 0.0
    validation_metrics: dict[str, float] = field(default_factory=dict)
    verified: bool = False
    seconds: float = 0.0

    def score(self, metric: str) -> float:
        """On the test split; NaN where there was nothing to rank, or an earlier version did not keep it."""
        return self.metrics.get(metric, math.nan)

    def validation_score(self, metric: str) -> float:
        """NaN where an earlier version did not keep it."""
        known = {"accuracy": self.validation_accuracy, **self.validation_metrics}
        return known.get(metric, math.nan)

    def plain(self) -> dict[str, object]:
        return dataclasses.asdict(self)
