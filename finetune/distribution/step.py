"""One step of a training whose batch is shared: each replica's gradient of its share, added up and applied once.

A replica computes in a stateless scope, on the weights as they are before the step. What it would have changed (running
statistics, states of random number generators) comes back as values, so that no variable is changed once a
replica, and what stands around the gradient is that of one process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

if TYPE_CHECKING:
    import tensorflow as tf

    from finetune.distribution.replicas import Replicas

SEED = "seed_generator_state"


@dataclass(eq=False)
class SharedStep:
    """Trains `model`, which is compiled, on one batch of all replicas.

    changing: the variables that a replica changes besides the weights; known once the step was traced.
    """

    replicas: Replicas
    strategy: tf.distribute.Strategy
    model: keras.Model

    def __post_init__(self) -> None:
        import tensorflow as tf

        self.changing: list[keras.Variable] = []
        self._after: list[list[Any]] = []
        self._traced = tf.function(self._step, autograph=False)

    def __call__(self, images: Any, labels: Any, weights: Any) -> Mapping[str, Any]:
        """The metrics so far. images: of this process's replicas. labels, weights (or None): of the whole batch."""
        logs, self._after = self._traced(images, labels, weights)
        return logs

    def each_replica_held(self) -> dict[int, list[np.ndarray]]:
        """By id() of a variable that changes: what each replica of this process made of it in the last step."""
        if len(self.replicas.here) == 1:
            return {}
        return {
            id(variable): [ops.convert_to_numpy(value) for value in values]
            for variable, values in zip(self.changing, self._after, strict=True)
        }

    def _step(self, images: Any, labels: Any, weights: Any) -> tuple[Mapping[str, Any], list[list[Any]]]:
        import tensorflow as tf

        model, strategy = self.model, self.strategy
        trained = model.trainable_variables
        values = [tf.convert_to_tensor(variable.value) for variable in trained]
        outcome = strategy.run(lambda: self._replica(trained, values, images, labels, weights))
        loss, outputs, gradients, after = outcome
        local = strategy.experimental_local_results
        used = [
            (local(g)[0], variable) for g, variable in zip(gradients, trained, strict=True) if g is not None
        ]
        model.optimizer.apply(*map(list, zip(*used, strict=True)))
        changed = [list(local(value)) for value in after]
        for variable, new in zip(self.changing, changed, strict=True):
            variable.assign(new[0])
        # the loss that `fit` shows is the mean over the images so far
        model.metrics[0].update_state(local(loss)[0], sample_weight=tf.shape(labels)[0])
        logs = model.compute_metrics(None, labels, local(outputs)[0], sample_weight=weights)
        return logs, changed if len(self.replicas.here) > 1 else []

    def _replica(
        self, trained: Sequence[keras.Variable], values: Sequence[Any], images: Any, labels: Any, weights: Any
    ) -> tuple[Any, Any, list[Any], list[Any]]:
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        place = int(tf.get_static_value(context.replica_id_in_sync_group))
        mine = _share(labels, place, self.replicas.count)
        model = self.model
        seeds = [v for v in model.non_trainable_variables if v.name == SEED]
        # each draws other numbers for its images; the first as one process would
        drawn = [tf.convert_to_tensor(seed.value) + tf.cast([place, 0], seed.dtype) for seed in seeds]
        mapping = [*zip(trained, values, strict=True), *zip(seeds, drawn, strict=True)]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            with keras.StatelessScope(mapping, collect_losses=True) as scope:
                outputs = model(_share_here(images, place, self.replicas), training=True)
                # the mean over the share, divided by the number of replicas
                loss = model.compute_loss(
                    None, mine, outputs, _share(weights, place, self.replicas.count), training=True
                )
            scaled = model.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, values)
        known = [g for g in gradients if g is not None]
        summed = iter(context.all_reduce("SUM", known))
        gradients = [None if g is None else next(summed) for g in gradients]
        new = [(v, scope.get_current_value(v)) for v in model.non_trainable_variables]
        changed = [(v, value) for v, value in new if value is not None]
        self.changing = [v for v, _ in changed]
        everything = context.all_gather(tf.cast(outputs, tf.float32), axis=0)
        return context.all_reduce("SUM", loss), everything, gradients, [value for _, value in changed]


def images_in(batch: Any) -> Any:
    """How many; a tensor where only the batch itself knows."""
    import tensorflow as tf

    return tf.shape(batch)[0] if batch.shape[0] is None else batch.shape[0]


def _share(values: Any, place: int, count: int) -> Any:
    """Of the whole batch, that of the replica at this place of so many."""
    if values is None:
        return None
    each = images_in(values) // count
    return values[place * each : (place + 1) * each]


def _share_here(values: Any, place: int, replicas: Replicas) -> Any:
    """Of the images of this process's replicas."""
    return _share(values, place - replicas.here.start, len(replicas.here))
