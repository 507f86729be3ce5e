"""Images that are there more than once, pixel for pixel at the size of the training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from finetune.datasheet.reading import Label, Reading


@dataclass(frozen=True)
class Repeats:
    """images: of the second split that the first one has, too; within one split, images beyond the first of their
    kind. contradicted: how many of them have another class there."""

    splits: tuple[str, str]
    images: int
    contradicted: int


def repeats(readings: Sequence[Reading]) -> tuple[Repeats, ...]:
    """Of every pair of splits, and within each; nothing where there is none.

    Calibration images need no labels and may be training images, so that pair is no news.
    """
    found = []
    for i, one in enumerate(readings):
        for other in readings[i:]:
            if {one.name, other.name} == {"train", "calibration"}:
                continue
            several = _within(one) if one is other else _between(one, other)
            if several.images:
                found.append(several)
    return tuple(found)


def _within(reading: Reading) -> Repeats:
    first: dict[bytes, Label] = {}
    images = contradicted = 0
    for mark, label in zip(reading.marks, reading.labels, strict=True):
        if mark in first:
            images += 1
            contradicted += first[mark] != label
        first.setdefault(mark, label)
    return Repeats((reading.name, reading.name), images, contradicted)


def _between(one: Reading, other: Reading) -> Repeats:
    known: dict[bytes, set[Label]] = defaultdict(set)
    for mark, label in zip(one.marks, one.labels, strict=True):
        known[mark].add(label)
    shared = [
        label in known[mark] for mark, label in zip(other.marks, other.labels, strict=True) if mark in known
    ]
    return Repeats((one.name, other.name), len(shared), shared.count(False))
