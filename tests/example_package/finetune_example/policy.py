"""Statistics that are there after a few steps."""

from typing import Literal

from pydantic import Field

from finetune.policies.following import Following


class Swift(Following):
    """Normalise with the batch; running statistics follow with a momentum of one half; gamma and beta train."""

    policy: Literal["swift"] = "swift"
    momentum: float = Field(0.5, ge=0, lt=1, description="Keras' momentum")
    affine_trains = True
