"""What came of one cell, as plain values that a line of the journal holds."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Outcome:
    """failed: in one line, why there are no numbers; empty where there are. metrics: on the test split, as
    `finetune run` has them. validation_loss, validation_accuracy: of the weights that were kept. verified: the proof
    held. seconds: of all of it."""

    failed: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    validation_loss: float = float("inf")
    validation_accuracy: float = 0.0
    verified: bool = False
    seconds: float = 0.0

    @property
    def accuracy(self) -> float:
        return self.metrics["accuracy"]

    def plain(self) -> dict[str, object]:
        return dataclasses.asdict(self)
