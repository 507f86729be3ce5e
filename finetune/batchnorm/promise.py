"""What a BN policy guarantees: the words that policies speak and the proof checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Promise:
    """What the proof holds a policy to, at one site.

    statistics: "fixed" never move; "measured" are measured before training and never move after;
        "follow" the batches of the stages that train the site.
    affine: gamma and beta are "fixed" or "train".
    frozen_epochs: statistics that follow stay through so many epochs at the end of the training.
    """

    statistics: Literal["fixed", "measured", "follow"]
    affine: Literal["fixed", "train"]
    frozen_epochs: int = 0
