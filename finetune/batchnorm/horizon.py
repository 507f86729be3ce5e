"""Horizon: momentum ** steps, the share of the initial running statistics that is left when a training ends.

With Keras' momentum of 0.99, 145 steps leave 23 %: a network that has learned its task in training may
then guess in service.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune.batchnorm.naming import some

MOST_LEFT = 0.05
"""Of more than this share a person is warned."""


@dataclass(frozen=True)
class Stretch:
    """So many steps in which a site's running statistics follow the batch, with Keras' momentum."""

    momentum: float
    steps: int


def share_left(stretches: Sequence[Stretch]) -> float:
    """Of the running statistics before the first stretch, after the last one; 1 where there is none."""
    return math.prod(stretch.momentum**stretch.steps for stretch in stretches)


def short_horizon(followed: Mapping[str, Sequence[Stretch]]) -> list[str]:
    """A warning about sites, by path, whose training is too short for their momentum; empty where there are none."""
    left = {path: share_left(stretches) for path, stretches in followed.items()}
    long = sorted((path for path in left if left[path] > MOST_LEFT), key=lambda path: -left[path])
    if not long:
        return []
    stretches = followed[long[0]]
    steps = sum(stretch.steps for stretch in stretches)
    counts = some([f"{path}: {left[path]:.0%}" for path in long])
    low_enough = math.floor(100 * MOST_LEFT ** (1 / steps)) / 100
    return [
        f"{len(long)} of {len(left)} sites that follow the batch keep more than {MOST_LEFT:.0%} of their initial "
        f"running statistics through the training ({counts}; momentum {stretches[-1].momentum:g} over {steps} steps): "
        f"momentum: {low_enough:g} or a longer training would leave less; "
        "finish: recalibrate, the default, measures them anew in the end"
    ]
