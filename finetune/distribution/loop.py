"""`fit` and `evaluate` for replicas: the same epochs, callbacks and logs as Keras' own, on shares of every batch.

All workers read the same batches in the same order, and each hands its share to the network. So augmentation, mixing
and the order of the images are those of one process; each worker pays for reading all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from finetune.distribution.data_parallel import UndividedValidation, undivided
from finetune.distribution.replicas import Replicas
from finetune.distribution.step import SharedStep, images_in

if TYPE_CHECKING:
    import tensorflow as tf


def fit(
    replicas: Replicas,
    model: keras.Model,
    batches: tf.data.Dataset,
    *,
    validation_data: tf.data.Dataset,
    callbacks: Sequence[keras.callbacks.Callback],
    epochs: int,
    initial_epoch: int = 0,
    class_weight: Mapping[int, float] | None = None,
) -> None:
    """As `model.fit`. batches: of (images, labels), all of one size, which the number of replicas divides.

    What the callbacks are told is the same in all workers; whatever of them writes belongs to the chief alone.
    """
    if replicas.strategy is None:
        model.fit(
            batches,
            validation_data=validation_data,
            initial_epoch=initial_epoch,
            epochs=epochs,
            class_weight=dict(class_weight) if class_weight else None,
            callbacks=[UndividedValidation(), *callbacks] if replicas.divided else list(callbacks),
            verbose=0,
            # the batches come shuffled; Keras warns that it will not shuffle them again
            shuffle=False,
        )
        return
    shares, step = _shares(batches, replicas, class_weight), SharedStep(replicas, replicas.strategy, model)
    heard = keras.callbacks.CallbackList(list(callbacks), model=model, epochs=epochs)
    model.stop_training = False
    heard.on_train_begin()
    for epoch in range(initial_epoch, epochs):
        model.reset_metrics()
        heard.on_epoch_begin(epoch)
        _run_epoch(model, shares, step, heard)
        replicas.held.update(step.each_replica_held())
        logs = _plain(model.get_metrics_result())
        validation = evaluate(replicas, model, validation_data, heard)
        logs |= {f"val_{name}": value for name, value in validation.items()}
        heard.on_epoch_end(epoch, _agreed(replicas, logs))
        if model.stop_training:
            break
    model.optimizer.finalize_variable_values(model.trainable_weights)
    heard.on_train_end()


def _run_epoch(
    model: keras.Model, shares: tf.data.Dataset, step: SharedStep, heard: keras.callbacks.CallbackList
) -> None:
    for number, (images, labels, *weights) in enumerate(shares):
        heard.on_train_batch_begin(number)
        heard.on_train_batch_end(number, step(images, labels, weights[0] if weights else None))
        if model.stop_training:
            break
    if int(shares.cardinality()) >= 0:
        # as `fit` does, which decides in which order the images come next (finetune.orders)
        iter(shares)


def evaluate(
    replicas: Replicas,
    model: keras.Model,
    batches: tf.data.Dataset,
    heard: keras.callbacks.CallbackList | None = None,
) -> dict[str, float]:
    """As `model.evaluate(..., return_dict=True)`, of metrics that are means; each worker takes a share of batches."""
    if replicas.workers == 1:
        with undivided():
            return _plain(model.evaluate(batches, callbacks=heard, verbose=0, return_dict=True))
    if int(batches.cardinality()) < replicas.workers:
        return _agreed(
            replicas, _plain(model.evaluate(batches, callbacks=heard, verbose=0, return_dict=True))
        )
    model.evaluate(batches.shard(replicas.workers, replicas.worker), callbacks=heard, verbose=0)
    counted = [variable for metric in model.metrics for variable in metric.variables]
    own = np.array([float(ops.convert_to_numpy(variable)) for variable in counted])
    for variable, total in zip(counted, np.sum(replicas.gathered(own), axis=0), strict=True):
        variable.assign(total)
    return _plain(model.get_metrics_result())


def _agreed(replicas: Replicas, logs: Mapping[str, float]) -> dict[str, float]:
    """Those of the chief, so that all workers stop, or go on, at the same epoch."""
    return dict(zip(logs, replicas.gathered(np.array(list(logs.values())))[0].tolist(), strict=True))


def _plain(logs: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(ops.convert_to_numpy(value)) for name, value in logs.items()}


def _shares(
    batches: tf.data.Dataset, replicas: Replicas, class_weight: Mapping[int, float] | None
) -> tf.data.Dataset:
    """(images of this process's replicas, labels of the whole batch[, their weights])."""
    import tensorflow as tf

    table = None
    if class_weight:
        table = tf.constant([class_weight.get(c, 1.0) for c in range(max(class_weight) + 1)], tf.float32)

    def share(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, ...]:
        each = images_in(images) // replicas.count
        mine = images[replicas.here.start * each : replicas.here.stop * each]
        if table is None:
            return mine, labels
        numbers = tf.argmax(labels, -1) if len(labels.shape) == 2 else labels
        return mine, labels, tf.gather(table, numbers)

    return batches.map(share).prefetch(tf.data.AUTOTUNE)
