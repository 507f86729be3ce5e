"""Divide pictures by fractions: seeded, and in every class alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from finetune.datasets.folder_scan import Picture
from finetune.errors import DataError

Pictures = list[Picture]


def divide(
    pictures: Sequence[Picture], class_names: Sequence[str], fractions: Mapping[str, float], seed: int
) -> dict[str, Pictures]:
    """Each fraction above 0 gets its share of each class, one image at least; train gets the rest.

    Raises DataError naming every class that is too small for that.
    """
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


def in_random_order(pictures: Sequence[Picture], *seeds: int) -> Pictures:
    """The same order for the same seeds."""
    return [pictures[place] for place in np.random.default_rng(seeds).permutation(len(pictures))]
