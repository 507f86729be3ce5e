"""What a BN policy guarantees: the words that policies speak and the proof checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Promise:
    """What the proof holds a policy to, for every site.

    statistics: "fixed" never move; "measured" are measured before training and never move after;
        "follow" the batches of the stages that train the site.
    affine: gamma and beta are "fixed" or "train".
    """

    statistics: Literal["fixed", "measured", "follow"]
    affine: Literal["fixed", "train"]
