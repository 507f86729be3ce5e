"""A share of the calibration images, for one of several processes that measure one set together."""

from __future__ import annotations

import re
from dataclasses import dataclass

from finetune.errors import InputError


@dataclass(frozen=True)
class Shard:
    """Share `number`, from 1, of `of`: every so-manieth batch, so that all shares together have the batches of the
    whole, on which one_pass depends. The first one publishes."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"share {self.number} of {self.of}"

    def holds(self, place: int, batch_size: int) -> bool:
        """Whether the image at a place of the whole set, from 0, is in it."""
        return place // batch_size % self.of == self.number - 1


def shard_in(text: str) -> Shard:
    """`2/4`. Raises InputError."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise InputError(f"--shard {text}: expected I/N with I from 1 to N, as in 2/4")
    return Shard(int(found[1]), int(found[2]))
