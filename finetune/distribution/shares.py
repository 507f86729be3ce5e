"""The calibration images as workers share them: every so-manieth batch, so that all together are the whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune.batchnorm.moments import PopulationMoments
from finetune.distribution.replicas import Replicas

if TYPE_CHECKING:
    import tensorflow as tf

    from finetune.batchnorm.layerwise import Combine


@dataclass(frozen=True, eq=False)
class SharedImages:
    """A set as finetune.policies.base.Images, of which each worker opens its share.

    open: batches of the first so many images, of `batch_size` each. count: images of the whole set.
    """

    open: Callable[[int | None], tf.data.Dataset]
    count: int
    batch_size: int
    replicas: Replicas

    def __call__(self, limit: int | None = None) -> tf.data.Dataset:
        batches = self.open(limit)
        if not self._shared(limit):
            return batches
        return batches.shard(self.replicas.workers, self.replicas.worker)

    def combine(self, limit: int | None = None) -> Combine:
        """What makes the moments of the whole of those of the share."""
        if self.replicas.workers == 1:
            return tuple
        return self.replicas.combine if self._shared(limit) else self._of_the_chief

    def _shared(self, limit: int | None) -> bool:
        """Where there is not a batch for each, all measure all of them: one_pass depends on what is in a batch."""
        images = self.count if limit is None else min(limit, self.count)
        return 1 < self.replicas.workers <= -(-images // self.batch_size)

    def _of_the_chief(self, own: Sequence[PopulationMoments]) -> Sequence[PopulationMoments]:
        return self.replicas.from_chief(own)
