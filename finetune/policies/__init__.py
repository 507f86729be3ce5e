"""The BN policies: one file each, told apart by `policy:`; a list of them is rules."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from finetune.policies.affine import Affine
from finetune.policies.base import Policy
from finetune.policies.freeze import Freeze
from finetune.policies.known import POLICIES, OnePolicy
from finetune.policies.recalibrate import Recalibrate
from finetune.policies.retrain import Retrain
from finetune.policies.rules import RuleList, Rules
from finetune.policies.statistics import Statistics


def _form(batchnorm: Any) -> str:
    return "a list of rules" if isinstance(batchnorm, list | tuple) else "one policy"


AnyPolicy = Annotated[
    Annotated[OnePolicy, Tag("one policy")] | Annotated[RuleList, Tag("a list of rules")],
    Discriminator(_form),
]
"""As in a recipe: one policy for all sites, or a list of rules."""

__all__ = [
    "POLICIES",
    "Affine",
    "AnyPolicy",
    "Freeze",
    "OnePolicy",
    "Policy",
    "Recalibrate",
    "Retrain",
    "Rules",
    "Statistics",
]
