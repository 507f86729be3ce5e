"""What was found out about the data of a recipe, and what of it a person should act on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from finetune.datasets.originals import Originals
from finetune.datasheet.reading import Reading
from finetune.datasheet.repeats import Repeats

UNEVEN = 5.0
"""Images of the largest class for one of the smallest in training, from which accuracy alone misleads."""

FEW = 20
"""Training images of a class."""

WIDE = 0.03
"""Standard error of an accuracy of 0.9 that is too wide to compare policies by: below 100 images."""


@dataclass(frozen=True)
class BackboneInput:
    """What the preprocessing makes of the training images, by channel, and how far that is from what the first BN site
    expects: mean over channels of the distance of the means, in stored standard deviations, and the divergence in nats.

    first_site: None where the network has none.
    """

    mean: tuple[float, ...]
    spread: tuple[float, ...]
    lowest: float
    highest: float
    first_site: str | None = None
    apart: float = 0.0
    divergence: float = 0.0
    implausible: bool = False


@dataclass(frozen=True)
class DataLook:
    """name: of the recipe. readings: train, validation, test, calibration. notes: what loading the data said.
    originals: the images before they are resized, where that is known."""

    name: str
    class_names: tuple[str, ...]
    image_size: int
    readings: tuple[Reading, ...]
    repeated: tuple[Repeats, ...]
    reaches: BackboneInput
    weighted: bool
    licence: str | None
    notes: tuple[str, ...]
    multi_label: bool = False
    originals: Originals | None = None

    @property
    def concerns(self) -> tuple[str, ...]:
        """One line each: what was found, and what to do."""
        return (
            *_contradictions(self.repeated),
            *_leaks(self.repeated),
            *_missing(self.class_names, self.readings),
            *_uneven(self.class_names, self.readings[0], self.weighted, self.multi_label),
            *_too_few(self.class_names, self.readings[0]),
            *_imprecise(self.readings[1:3]),
            *_unprepared(self.reaches),
        )


def _contradictions(repeated: Sequence[Repeats]) -> Iterator[str]:
    for each in repeated:
        if each.contradicted:
            where = each.splits[0] if each.splits[0] == each.splits[1] else " and ".join(each.splits)
            several = "1 image has" if each.contradicted == 1 else f"{each.contradicted} images have"
            yield f"{several} two different classes in {where}: correct the labels"


def _leaks(repeated: Sequence[Repeats]) -> Iterator[str]:
    for each in repeated:
        one, other = each.splits
        if one != other:
            several = f"1 image of {other} is" if each.images == 1 else f"{each.images} images of {other} are"
            yield (
                f"{several} in {one}, too: what is measured on {other} is too good; take them out of one of the two"
            )


def _missing(names: Sequence[str], readings: Sequence[Reading]) -> Iterator[str]:
    for reading in readings[:3]:
        absent = [name for name, count in zip(names, reading.counts, strict=True) if not count]
        if absent:
            yield f"{reading.name} has no image of {_listed(absent)}: nothing is learnt or known about it there"


def _uneven(names: Sequence[str], train: Reading, weighted: bool, multi_label: bool) -> Iterator[str]:
    counts = [count for count in train.counts if count]
    if counts and max(counts) >= UNEVEN * min(counts) and not weighted:
        most, least = (names[train.counts.index(end(counts))] for end in (max, min))
        yield (
            f"train has {max(counts) / min(counts):.1f} times as many images of {most} as of {least}: "
            + (
                "compare by average precision or macro F1"
                if multi_label
                else "set data.class_weights: balanced, and compare by balanced accuracy"
            )
        )


def _too_few(names: Sequence[str], train: Reading) -> Iterator[str]:
    few = [name for name, count in zip(names, train.counts, strict=True) if 0 < count < FEW]
    if few:
        yield f"train has fewer than {FEW} images of {_listed(few)}: keep the statistics frozen, and augment"


def _imprecise(readings: Sequence[Reading]) -> Iterator[str]:
    for reading in readings:
        error = math.sqrt(0.9 * 0.1 / max(reading.total, 1))
        if error >= WIDE:
            yield (
                f"{reading.name} has {reading.total} images: an accuracy of .9 is known to about "
                f"±{196 * error:.0f} points there; differences between policies drown in that"
            )


def _unprepared(reaches: BackboneInput) -> Iterator[str]:
    if reaches.implausible:
        yield (
            f"what reaches the first BN site {reaches.first_site} is {reaches.divergence:.3g} nats from its own, "
            "more than a change of camera makes: preprocessing or weights do not belong to this backbone"
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
