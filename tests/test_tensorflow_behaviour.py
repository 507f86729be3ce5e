"""What is assumed about TensorFlow itself, below Keras; what it does not document is here too."""

import errno
import gc
import os
import random
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.framework import ops

from finetune.batchnorm.graph_function import GraphFunction
from finetune.batchnorm.step_gradients import _graph_of, forget_gradients_of_steps
from finetune.comparison.seeding import set_seeds


def test_a_traced_function_can_be_put_on_other_variables():
    first, second = tf.Variable([1.0]), tf.Variable([10.0])
    concrete = tf.function(lambda x: first.assign_add(x)).get_concrete_function(tf.TensorSpec([1]))
    assert [id(captured) for captured in concrete.captured_inputs] == [id(first.handle)]
    concrete.set_external_captures([second.handle])
    assert float(concrete(tf.constant([2.0]))[0]) == 12.0
    assert (float(first[0]), float(second[0])) == (1.0, 12.0)


def test_tensorflow_has_no_error_of_the_system_for_a_full_disk():
    """Why finetune.full_disk reads its words: the class is the one for lack of memory."""
    with pytest.raises(tf.errors.ResourceExhaustedError, match=os.strerror(errno.ENOSPC)) as error:
        tf.io.write_file("/dev/full", "weights")
    assert not isinstance(error.value, OSError)


def test_seeds_are_those_of_keras_though_tensorflow_keeps_its_functions():
    def draws(seed, set_all):
        set_all(seed)
        order = list(tf.data.Dataset.range(50).shuffle(50, seed=3).as_numpy_iterator())
        return order, random.random(), np.random.rand(), float(keras.random.uniform(()))

    assert draws(1, set_seeds) == draws(1, keras.utils.set_random_seed)
    assert draws(2, set_seeds) != draws(1, set_seeds)


def test_a_convolution_with_an_offset_and_a_relu_is_one_kernel_that_hides_a_nan():
    """Unless the shape is checked between them, which costs nothing (finetune.batchnorm.producer)."""
    x = np.ones((2, 8, 8, 4), np.float32)
    x[1] = np.nan
    kernel, offset = tf.ones([1, 1, 4, 8]), tf.Variable(tf.ones([8]))
    moved = lambda x: tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), offset)  # noqa: E731
    fused = tf.function(lambda x: tf.nn.relu(moved(x)))
    apart = tf.function(lambda x: tf.nn.relu(tf.ensure_shape(moved(x), [*x.shape[:3], 8])))
    assert not np.isnan(fused(tf.constant(x))).any()
    assert np.isnan(apart(tf.constant(x))[1]).all()


def test_a_fused_site_and_a_relu_that_alone_reads_it_are_one_kernel_that_hides_a_nan():
    """Why finetune.batchnorm.kernel reads one of its outputs, too."""
    x = np.ones((2, 8, 8, 8), np.float32)
    x[1] = np.nan
    options = {
        "scale": tf.ones([8]),
        "offset": tf.ones([8]),
        "mean": tf.zeros([0]),
        "variance": tf.zeros([0]),
    }

    @tf.function
    def hidden(x):
        return tf.nn.relu(tf.raw_ops.FusedBatchNormV3(x=x, is_training=True, **options).y)

    @tf.function
    def seen(x):
        y = tf.raw_ops.FusedBatchNormV3(x=x, is_training=True, **options).y
        return tf.nn.relu(y), tf.reduce_sum(y[:1, :1, :1, 0])

    assert not np.isnan(hidden(tf.constant(x))).any()
    assert np.isnan(seen(tf.constant(x))[0]).all()


def test_a_function_that_was_written_down_is_known_called_and_forgotten():
    """By a module that TensorFlow does not document (finetune.batchnorm.graph_function)."""
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None], name="x")
        tf.add(x, 1.0, name="more")
    nodes = [node for node in graph.as_graph_def().node if node.name != "x"]
    piece = GraphFunction(nodes, {"x:0": tf.float32.as_datatype_enum}, ["more:0"], {})
    [found] = piece([tf.constant([1.0, 2.0])])
    assert found.numpy().tolist() == [2.0, 3.0]
    [name] = [name for name in context.context().list_function_names() if str(piece._name) in str(name)]
    del piece
    assert not context.context().has_function(name)


def test_an_array_is_copied_but_where_its_memory_is_handed_over():
    """Why finetune.batchnorm.tf_network takes what was on disk by DLPack, which ends the process where an array does
    not begin at a multiple of 64 bytes."""
    room = np.zeros(4096 + 64, np.uint8)
    start = -room.ctypes.data % 64
    array = room[start : start + 4096].view(np.float32)
    copied, shared = tf.convert_to_tensor(array), tf.experimental.dlpack.from_dlpack(array.__dlpack__())
    array[5] = 7.0
    assert (float(copied[5]), float(shared[5])) == (0.0, 7.0)
    held = weakref.ref(array)
    del array
    assert held() is not None
    del shared
    assert held() is None


def test_what_a_training_step_registers_holds_its_graph_for_good():
    """Why finetune.batchnorm.step_gradients takes it back, and how it finds the graph."""
    before = set(ops.gradient_registry.list())

    def one_step_on_data(x):
        return tf.custom_gradient(lambda y: (y * 2, lambda upstream: upstream * 2))(x)

    concrete = tf.function(one_step_on_data).get_concrete_function(tf.TensorSpec([2]))
    graph = weakref.ref(concrete.graph)
    [name] = set(ops.gradient_registry.list()) - before
    assert name.startswith("CustomGradient-")
    assert _graph_of(ops.gradient_registry.lookup(name)) is concrete.graph
    del concrete, one_step_on_data
    gc.collect()
    assert graph() is not None
    assert forget_gradients_of_steps() >= 1
    gc.collect()
    assert graph() is None
