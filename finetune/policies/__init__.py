"""The BN policies: one file each, told apart by `policy:`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from finetune.policies.base import Policy
from finetune.policies.freeze import Freeze
from finetune.policies.recalibrate import Recalibrate
from finetune.policies.retrain import Retrain

POLICIES: tuple[type[Policy], ...] = (Freeze, Recalibrate, Retrain)

AnyPolicy = Annotated[Freeze | Recalibrate | Retrain, Field(discriminator="policy")]

__all__ = ["POLICIES", "AnyPolicy", "Freeze", "Policy", "Recalibrate", "Retrain"]
