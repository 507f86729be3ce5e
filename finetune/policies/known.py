"""Every policy that a recipe can name: the toolkit's own, and those of other packages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from finetune.contributed import with_contributed
from finetune.policies.affine import Affine
from finetune.policies.base import UniformPolicy
from finetune.policies.freeze import Freeze
from finetune.policies.recalibrate import Recalibrate
from finetune.policies.retrain import Retrain
from finetune.policies.statistics import Statistics

OWN: tuple[type[UniformPolicy], ...] = (Freeze, Recalibrate, Retrain, Affine, Statistics)
POLICIES = with_contributed(OWN, "finetune.policies", UniformPolicy, "policy")  # type: ignore[type-abstract]

if TYPE_CHECKING:
    OnePolicy = UniformPolicy
else:
    OnePolicy = Annotated[Union[POLICIES], Field(discriminator="policy")]  # noqa: UP007 - of however many there are
"""As in a recipe: the same for all sites that it is given."""
