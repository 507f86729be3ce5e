"""What the workers of a strategy tell each other: vectors of any length."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import tensorflow as tf

    from finetune.distribution.replicas import Everyone


def exchange_over(strategy: tf.distribute.Strategy) -> Everyone:
    """One replica a worker. All of them have to call it, and wait for each other in it."""
    import tensorflow as tf

    signature = [tf.TensorSpec([None], tf.float64)]

    # traced once, whatever the length
    @tf.function(input_signature=signature, autograph=False)
    def together(vector: tf.Tensor) -> tf.Tensor:
        def own() -> tf.Tensor:
            # a tensor that is made here is on a device; an argument is on none, and cannot be gathered
            here = tf.identity(vector)
            return tf.distribute.get_replica_context().all_gather(here, axis=0)

        return strategy.run(own)

    def everyone(vector: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        lengths = np.asarray(together(np.array([vector.size], np.float64))).astype(int)
        # an empty vector has nothing to be gathered; one more entry travels along
        padded = np.asarray(together(np.r_[np.asarray(vector, np.float64), 0.0]))
        return [part[:-1] for part in np.split(padded, np.cumsum(lengths + 1)[:-1])]

    return everyone
