"""The heads: one file each, told apart by `kind:`."""

from __future__ import annotations

from finetune.heads.base import Head
from finetune.heads.linear import Linear

HEADS: tuple[type[Head], ...] = (Linear,)

# a union of one: with a second head it becomes Annotated[Linear | ..., Field(discriminator="kind")]
AnyHead = Linear

__all__ = ["HEADS", "AnyHead", "Head", "Linear"]
