"""Sites that train faster and compute the same: borrowed calls around the compile and fit of one stage.

A site in batch mode runs the fastest kernel there is for it, one in running mode is a part of the convolution in front
of it, or else a single multiply-add. Nothing of it is saved: configuration and variables stay those of the plain Keras
layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops
from keras.layers import BatchNormalization

from finetune.batchnorm.kernel import fusible, normalise_with_batch, scaled
from finetune.batchnorm.shared_kernel import normalise_with_all_shares
from finetune.batchnorm.sites import BNSite, SiteCall, replaced_calls
from finetune.batchnorm.step_gradients import forget_gradients_of_steps


@contextmanager
def fast_sites(model: keras.Model, sites: Sequence[BNSite]) -> Iterator[None]:
    """Inside the block the sites of `model` run faster; outputs, gradients and running statistics are Keras'.

    Compile and fit inside it. What a site normalises with is read where Keras reads it, off `layer.trainable`
    and the `training` flag at tracing time, so whatever a policy prepared holds. Calls that the fused kernel
    does not know (another backend, channels not last, float64, masks, renorm, subclasses of BatchNormalization) stay
    Keras' own. Synchronised sites among replicas of a strategy, whose shares of a batch are equal, take one exchange
    of moments in place of Keras' three. Afterwards the functions that `fit`, `evaluate` and `predict` cached are
    dropped, since they would keep the borrowed calls; the next use traces them anew. So is what TensorFlow would keep
    of them for good.
    """
    layers = [site.layer for site in sites if site.built and _plain(site.layer)]
    try:
        with replaced_calls(layers, _fast_call):
            yield
    finally:
        model.train_function = model.test_function = model.predict_function = None
        if keras.backend.backend() == "tensorflow":
            forget_gradients_of_steps()


def _plain(layer: BatchNormalization) -> bool:
    # renorm came to Keras in 3.14; a subclass may compute anything
    return type(layer) is BatchNormalization and not getattr(layer, "renorm", False)


def _fast_call(layer: BatchNormalization, original: SiteCall) -> SiteCall:
    def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if mask is not None or not fusible(inputs, layer.axis):
            return original(inputs, training=training, mask=mask)
        if not (training and layer.trainable):
            return _with_running(layer, inputs)
        return _with_batch(layer, inputs)

    return call


def _synchronised(layer: BatchNormalization) -> bool:
    """Whether the moments are those of all replicas together, in one of which we are; TensorFlow only."""
    if not layer.synchronized:
        return False
    import tensorflow as tf

    return bool(tf.distribute.has_strategy()) and tf.distribute.get_replica_context() is not None


def _with_batch(layer: BatchNormalization, inputs: Any) -> Any:
    if _synchronised(layer):
        outputs, mean, variance = normalise_with_all_shares(
            inputs, layer.gamma, layer.beta, layer.epsilon, layer.moving_mean
        )
    else:
        outputs, mean, variance = normalise_with_batch(
            inputs, layer.gamma, layer.beta, layer.epsilon, layer.moving_mean
        )
    for moving, batch in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        kept = ops.cast(moving, batch.dtype) * layer.momentum
        moving.assign(kept + batch * (1.0 - layer.momentum))
    return ops.cast(outputs, layer.compute_dtype)


def _with_running(layer: BatchNormalization, inputs: Any) -> Any:
    dtype = keras.backend.result_type(inputs.dtype, "float32")
    scale = ops.rsqrt(ops.cast(layer.moving_variance, dtype) + layer.epsilon)
    if layer.gamma is not None:
        scale = scale * ops.cast(layer.gamma, dtype)
    offset = -ops.cast(layer.moving_mean, dtype) * scale
    if layer.beta is not None:
        offset = offset + ops.cast(layer.beta, dtype)
    return ops.cast(scaled(inputs, scale, offset), layer.compute_dtype)
