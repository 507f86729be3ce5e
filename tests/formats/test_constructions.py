"""Sites are found by what the variables do: in every odd form of BN, and in nothing that only looks like one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from finetune.errors import ModelError
from finetune.formats.saved_model import open_saved_model
from tests.formats.constructions import CONSTRUCTIONS, ByHand
from tests.formats.recalibrating import recalibrate


def saved(net, folder):
    """As a signature in inference mode; without Keras' own export, which takes five times as long."""
    module = tf.Module()
    module.variables_of_the_net = [variable.value for variable in net.variables]
    spec = tf.TensorSpec((None, *net.input_shape[1:]), net.inputs[0].dtype)
    serve = tf.function(lambda inputs: net(inputs, training=False), input_signature=[spec], autograph=False)
    tf.saved_model.save(module, str(folder), signatures=serve.get_concrete_function())
    return folder


def inputs_of(net, count=24):
    values = np.random.default_rng(5).normal(1.0, 2.0, (count, *net.input_shape[1:]))
    return tf.cast(values, net.inputs[0].dtype).numpy()


def is_site(layer):
    layer = layer.layer if isinstance(layer, keras.layers.TimeDistributed) else layer
    return isinstance(layer, keras.layers.BatchNormalization | ByHand)


def first_moments(net, inputs):
    """Mean and variance of what the first site is given, by Keras and NumPy in float64."""
    first = next(layer for layer in net.layers if is_site(layer))
    seen = keras.Model(net.inputs, first.input)(inputs) if first is not net.layers[0] else inputs
    seen = np.asarray(tf.cast(seen, tf.float64))
    axis = getattr(first, "axis", -1) % seen.ndim
    others = tuple(a for a in range(seen.ndim) if a != axis)
    return seen.mean(others), seen.var(others)


@pytest.mark.parametrize("name", CONSTRUCTIONS)
def test_every_site_is_found_and_nothing_else(name, tmp_path):
    make, count = CONSTRUCTIONS[name]
    net = make()
    folder = saved(net, tmp_path / "model")
    if not count:
        with pytest.raises(ModelError, match="no BN site"):
            open_saved_model(folder)
        return
    model = open_saved_model(folder)
    assert len(model.sites) == count
    inputs = inputs_of(net)
    recalibrate(model, inputs)
    mean, variance = first_moments(net, inputs)
    stored = model.sites[0].statistics
    tolerance = {"bfloat16": 2e-2, "mixed_bfloat16": 2e-2}.get(net.layers[0].dtype_policy.name, 2e-5)
    sd = np.sqrt(variance)
    assert np.abs(stored.mean.astype(np.float64) - mean).max() < tolerance * sd.max()
    assert np.abs(stored.variance.astype(np.float64) / variance - 1).max() < tolerance
