"""Train the sites like everything else."""

from __future__ import annotations

from typing import ClassVar, Literal

from finetune.policies.following import Following


class Retrain(Following):
    """Normalise with the batch; running statistics, gamma and beta follow, then are measured anew."""

    policy: Literal["retrain"] = "retrain"
    affine_trains: ClassVar[bool] = True
