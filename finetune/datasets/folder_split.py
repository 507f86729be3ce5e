"""Divide pictures by fractions: seeded, and in every class alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from finetune.datasets.flag_split import deal_flags
from finetune.datasets.folder_scan import Picture
from finetune.errors import DataError

Pictures = list[Picture]


def divide(
    pictures: Sequence[Picture], class_names: Sequence[str], fractions: Mapping[str, float], seed: int
) -> dict[str, Pictures]:
    """Each fraction above 0 gets its share of each class, one image at least; train gets the rest.

    Raises DataError naming every class that is too small for that.
    """
    if pictures and isinstance(pictures[0].label, tuple):
        return _divide_flagged(pictures, class_names, fractions, seed)
    parts: dict[str, Pictures] = {"train": [], **{name: [] for name, share in fractions.items() if share > 0}}
    problems = []
    for label, class_name in enumerate(class_names):
        members = in_random_order([p for p in pictures if p.label == label], seed, label)
        counts = {name: max(1, round(share * len(members))) for name, share in fractions.items() if share > 0}
        if sum(counts.values()) >= len(members):
            problems.append(
                f"data.fractions: class {class_name} has {len(members)} images, too few for {', '.join(parts)}"
            )
        for name, count in counts.items():
            parts[name] += members[:count]
            members = members[count:]
        parts["train"] += members
    if problems:
        raise DataError(problems)
    return parts


def _divide_flagged(
    pictures: Sequence[Picture], class_names: Sequence[str], fractions: Mapping[str, float], seed: int
) -> dict[str, Pictures]:
    shares = {name: share for name, share in fractions.items() if share > 0}
    names = ("train", *shares)
    flags = np.array([picture.label for picture in pictures])
    problems = [
        f"data.fractions: class {class_name} has {count} images, too few for {', '.join(names)}"
        for class_name, count in zip(class_names, flags.sum(axis=0), strict=True)
        if count < len(names)
    ]
    if problems:
        raise DataError(problems)
    part = deal_flags(flags, (1 - sum(shares.values()), *shares.values()), seed)
    return {
        name: [each for each, into in zip(pictures, part, strict=True) if into == p]
        for p, name in enumerate(names)
    }


def in_random_order(pictures: Sequence[Picture], *seeds: int) -> Pictures:
    """The same order for the same seeds."""
    return [pictures[place] for place in np.random.default_rng(seeds).permutation(len(pictures))]
