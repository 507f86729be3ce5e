"""A process that trains again and again keeps none of their graphs; a function of the user's keeps its gradient."""

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from finetune.batchnorm.fast_sites import fast_sites
from finetune.batchnorm.sites import find_sites
from finetune.batchnorm.step_gradients import STEPS, forget_gradients_of_steps

X = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype(np.float32)


class Doubled(keras.layers.Layer):
    """With a `tf.function` and a gradient of its own, as networks from elsewhere may have."""

    def __init__(self):
        super().__init__()
        self.scale = self.add_weight(shape=(), initializer="ones")
        self.function = tf.function(self.twice)

    def twice(self, x):
        return tf.custom_gradient(lambda y: (y * 2.0, lambda upstream: upstream * 3.0))(x)

    def call(self, x):
        return self.function(x * self.scale)


def net():
    x = inputs = keras.Input((8, 8, 3))
    for filters in (8, 16):
        x = keras.layers.Conv2D(filters, 1, use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.GlobalAveragePooling2D()(Doubled()(x))
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def trained():
    model = net()
    with fast_sites(model, find_sites(model, X[:1])):
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(X, np.arange(32) % 3, verbose=0)
    return model


def graphs_of_steps():
    gc.collect()
    return sum(isinstance(each, FuncGraph) and each.name in STEPS for each in gc.get_objects())


@pytest.fixture(autouse=True)
def nothing_of_other_tests():
    keras.backend.clear_session()
    forget_gradients_of_steps()


def test_no_graph_of_a_step_outlives_its_model():
    before = graphs_of_steps()
    for _ in range(2):
        model = trained()
        del model
        keras.backend.clear_session()
    assert graphs_of_steps() == before


def test_a_function_that_a_network_brought_is_differentiated_as_before():
    model = trained()
    [layer] = [layer for layer in model.layers if isinstance(layer, Doubled)]
    x = tf.ones([2, 8, 8, 16])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer.function(x)
    assert np.all(tape.gradient(y, x) == 3.0)
