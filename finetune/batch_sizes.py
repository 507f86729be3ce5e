"""The batch size of every epoch of a stage, and how many steps that makes.

Larger batches towards the end take noise out of the gradient as a falling rate does (Smith et al. 2018,
arXiv:1711.00489), and out of the batch statistics of every BN site as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finetune.stage import Stage


@dataclass(frozen=True)
class Leg:
    """Epochs in a row (from 0) whose batches have one size: `steps` batches an epoch."""

    epochs: range
    batch_size: int
    steps: int


def legs(stage: Stage, otherwise: int, images: int, epochs: range | None = None) -> tuple[Leg, ...]:
    """The legs of a stage, or of those `epochs` of it.

    otherwise: the batch size where the stage has none of its own. images: in the training split; what is left of
    an epoch is dropped, and a split smaller than a batch is one batch.
    """
    sizes = [min(size, images) for size in _sizes(stage, otherwise)]
    found = []
    for size, group in groupby(range(stage.epochs) if epochs is None else epochs, key=lambda e: sizes[e]):
        several = list(group)
        found.append(Leg(range(several[0], several[-1] + 1), size, images // size))
    return tuple(found)


def sizes_by_key(stages: Sequence[Stage], otherwise: int, images: int) -> dict[str, set[int]]:
    """Images of the training batches, by the recipe key that says how many; the rest as `legs` takes it."""
    sizes: dict[str, set[int]] = {}
    for number, stage in enumerate(stages):
        key = "data.batch_size" if stage.batch_size is None else f"stages[{number}].batch_size"
        sizes.setdefault(key, set()).update(leg.batch_size for leg in legs(stage, otherwise, images))
    return sizes


def steps_of(several: Sequence[Leg]) -> int:
    """How many batches these legs train on."""
    return sum(len(leg.epochs) * leg.steps for leg in several)


def sizes_in_words(stage: Stage) -> str:
    """`batches of 32, 64, 128`; nothing where the stage has no batch size of its own."""
    if stage.batch_size is None:
        return ""
    return f"batches of {', '.join(map(str, _listed(stage.batch_size)))}"


def _sizes(stage: Stage, otherwise: int) -> tuple[int, ...]:
    """One an epoch; the last of a list stays."""
    listed = _listed(otherwise if stage.batch_size is None else stage.batch_size)
    return (*listed, *[listed[-1]] * (stage.epochs - len(listed)))


def _listed(sizes: int | tuple[int, ...]) -> tuple[int, ...]:
    return (sizes,) if isinstance(sizes, int) else sizes
