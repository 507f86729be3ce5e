"""The orders that training batches come in: a shuffled dataset is in another one every time it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune.keras_backend import on_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(eq=False)
class Orders:
    """Training batches, and how many of their orders have been drawn so far.

    What is drawn is decided by the seed and by this number, so that a training that was broken off goes on with the
    order that would have come next.
    """

    batches: tf.data.Dataset
    drawn: int = 0

    @property
    def _an_epoch(self) -> int:
        """Orders that `fit` draws in one.

        Where the number of batches is known, it opens the dataset again at the end of an epoch, and once more at the
        beginning of the next (tests/test_keras_behaviour.py). On JAX it opens it when it reads its first batch.
        """
        return 1 if int(self.batches.cardinality()) < 0 or not on_tensorflow() else 2

    def epoch_is_over(self) -> None:
        """To be called after every epoch of `fit`."""
        self.drawn += self._an_epoch

    def draw_an_epoch(self) -> None:
        """As `fit` does, without reading any batch; it is over when `epoch_is_over` is called."""
        for _ in range(self._an_epoch):
            iter(self.batches)

    def skip_to(self, drawn: int) -> None:
        """Draw orders without reading any batch, until so many are drawn."""
        for _ in range(drawn - self.drawn):
            iter(self.batches)
        self.drawn = max(drawn, self.drawn)
