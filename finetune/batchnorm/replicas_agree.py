"""Whether all replicas of a training ended with the same running statistics.

Each replica of a tf.distribute strategy updates its own from its share of the batches, unless they synchronise; what is
saved are those of the first, without a word.
"""

from __future__ import annotations

from finetune.batchnorm.naming import named
from finetune.batchnorm.shift import distance
from finetune.batchnorm.timeline import Timeline
from finetune.result import Check

APART = 1e-5
"""In standard deviations: float32 rounding of machines that differ; shares of one batch are thousands of times as far
apart."""

EPSILON = 1e-3
"""Inside the variances that distances are measured by: a channel that is dead everywhere has none."""


def replicas_agree(timeline: Timeline) -> tuple[Check, ...]:
    """Nothing where there was one replica."""
    if timeline.replicas is None:
        return ()
    first, *others = timeline.replicas
    paths = [reading.path for reading in timeline.trained]
    apart = [
        max(distance(one, replica[place], EPSILON) for replica in others) for place, one in enumerate(first)
    ]
    differing = [path for path, far in zip(paths, apart, strict=True) if not far <= APART]
    furthest = max(apart, default=0.0)
    counted = f"{len(timeline.replicas)} replicas, {len(paths)} sites"
    detail = f"{counted}: largest distance {furthest:.1e} sd (at most {APART:g})" + named(differing)
    return (Check("every replica holds the same statistics", not differing, detail),)
