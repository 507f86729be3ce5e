"""Sites inside `fast_sites` compute what Keras' own compute, and are Keras' own again behind it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from finetune.batchnorm.fast_sites import fast_sites
from finetune.batchnorm.sites import find_sites
from finetune.policies import Affine, Freeze, Retrain, Statistics
from tests.nets import (
    CLASSES,
    NETS,
    SIZE,
    compile_and_fit,
    disturbed,
    functional_net,
    images,
    labels,
)

POLICIES = {"freeze": Freeze(), "affine": Affine(), "retrain": Retrain(), "statistics": Statistics()}
MIXED = ("batch", "running", "batch")
"""The kinds of site of `functional_net` in one network."""


def sure_net():
    """`functional_net` without the one layer that draws random numbers."""
    model = functional_net()
    next(layer for layer in model.layers if isinstance(layer, layers.Dropout)).rate = 0.0
    return model


def wide_net():
    """Sites behind each kind of convolution: 3 x 3, 1 x 1 to many channels, depthwise, 1 x 1 to few."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = inputs
    for convolution in (
        layers.Conv2D(4, 3, padding="same"),
        layers.Conv2D(16, 1, use_bias=False),
        layers.DepthwiseConv2D(3, padding="same"),
        layers.Conv2D(4, 1),
    ):
        x = layers.ReLU()(layers.BatchNormalization()(convolution(x)))
    outputs = layers.Dense(CLASSES, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    return disturbed(keras.Model(inputs, outputs))


def deep_net():
    """Sites of few positions behind kernels that are larger than what they make."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.AveragePooling2D(SIZE // 2)(inputs)
    for convolution in (layers.Conv2D(24, 3, padding="same"), layers.Conv2D(24, 3, padding="same")):
        x = layers.ReLU()(layers.BatchNormalization()(convolution(x)))
    outputs = layers.Dense(CLASSES, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    return disturbed(keras.Model(inputs, outputs))


def preactivated_net():
    """Sites that no convolution stands before: on the images, and behind a join; of channels that oneDNN takes."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.ReLU()(layers.BatchNormalization()(inputs))
    x = layers.Add()([layers.Conv2D(8, 3, padding="same")(x), layers.Conv2D(8, 1)(inputs)])
    x = layers.ReLU()(layers.BatchNormalization()(x))
    outputs = layers.Dense(CLASSES, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    return disturbed(keras.Model(inputs, outputs))


def in_float64(build):
    """The same network in float64, computed by Keras' single operations."""
    weights = build().get_weights()
    keras.config.set_dtype_policy("float64")
    try:
        model = build()
    finally:
        keras.config.set_dtype_policy("float32")
    model.set_weights(weights)
    return model


def sites_of(model, policy):
    sites = find_sites(model, images(1))
    POLICIES[policy].prepare(sites, trained=sites, steps_per_epoch=3)
    return sites


def outputs_and_gradients(model, x):
    """In training mode: the outputs, and the gradients of their weighted sum by images and all variables."""
    x = tf.constant(x, model.weights[0].dtype)
    weights = tf.constant(np.random.default_rng(4).normal(size=(len(x), CLASSES)), x.dtype)
    variables = [v.value for v in model.trainable_variables]

    # as a graph: what stands before a site shows there only
    @tf.function(autograph=False)
    def run():
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = model(x, training=True)
            total = tf.reduce_sum(outputs * weights)
        return [outputs, *tape.gradient(total, [x, *variables])]

    return run()


@pytest.mark.parametrize("net", ["functional", "custom_layer", "subclassed", "wide", "deep"])
@pytest.mark.parametrize("policy", POLICIES)
def test_outputs_gradients_and_statistics_are_those_of_float64(net, policy):
    build = {**NETS, "functional": sure_net, "wide": wide_net, "deep": deep_net}[net]
    ours, reference = build(), in_float64(build)
    sites, expected_sites = sites_of(ours, policy), sites_of(reference, policy)
    expected = outputs_and_gradients(reference, images(16))
    with fast_sites(ours, sites):
        found = outputs_and_gradients(ours, images(16))
    assert len(found) == 2 + len(ours.trainable_variables) > 4
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)
    for site, other in zip(sites, expected_sites, strict=True):
        if site.built:
            np.testing.assert_allclose(site.statistics.mean, other.statistics.mean, atol=1e-6)
            np.testing.assert_allclose(site.statistics.variance, other.statistics.variance, atol=1e-6)


@pytest.fixture(scope="module")
def fits():
    """Statistics before and after nine steps of `fit` at rate 0, of both kinds of site: ours, and float64 Keras'."""
    found = []
    for model, fast in ((sure_net(), True), (in_float64(sure_net), False)):
        sites = find_sites(model, images(1))
        for site, mode in zip(sites, MIXED, strict=True):
            site.follow(0.8) if mode == "batch" else site.freeze()
        before = [site.statistics for site in sites]
        with fast_sites(model, sites if fast else ()):
            compile_and_fit(model, epochs=3, rate=0.0)
        found.append((before, [site.statistics for site in sites]))
    return found


def test_running_statistics_after_many_steps_are_those_of_keras(fits):
    (_, found), (_, expected) = fits
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.mean, other.mean, atol=1e-6)
        np.testing.assert_allclose(one.variance, other.variance, atol=1e-6)


def test_in_fit_the_statistics_of_frozen_sites_stay_and_the_others_follow(fits):
    before, after = fits[0]
    stayed = [a.identical(b) for a, b in zip(before, after, strict=True)]
    assert stayed == [mode == "running" for mode in MIXED]


def test_a_whole_fit_trains_the_weights_that_keras_trains():
    ours, stock = sure_net(), sure_net()
    start = stock.get_weights()
    for model, fast in ((ours, True), (stock, False)):
        sites = sites_of(model, "retrain")
        with fast_sites(model, sites if fast else ()):
            keras.utils.set_random_seed(0)
            compile_and_fit(model, epochs=2)
    for a, b in zip(ours.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert max(np.abs(a - b).max() for a, b in zip(start, stock.get_weights(), strict=True)) > 0.05


def two_sites(shape=(6, 4), **options):
    """Two sites in depth with these options behind dense layers."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input(shape)
    x = layers.BatchNormalization(**options)(layers.Dense(shape[-1])(inputs))
    return keras.Model(inputs, layers.BatchNormalization(**options)(layers.Dense(shape[-1])(x)))


def pair(**options):
    """(outputs, statistics) of one call in training mode: inside `fast_sites`, and Keras' own."""
    x = np.random.default_rng(3).normal(1, 2, (12, 6, 4)).astype(np.float32)
    found = []
    for fast in (True, False):
        model = two_sites(**options)
        sites = find_sites(model, x[:1])
        with fast_sites(model, sites if fast else ()):
            outputs = model(x, training=True)
        found.append(
            [outputs, *(s for site in sites for s in (site.statistics.mean, site.statistics.variance))]
        )
    return found


@pytest.mark.parametrize(
    "options",
    [{"scale": False}, {"center": False}, {"scale": False, "center": False}, {"axis": 1}, {"epsilon": 0.5}],
    ids=str,
)
def test_every_option_of_a_site_is_honoured(options):
    for a, b in zip(*pair(**options), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_under_mixed_precision_outputs_have_its_dtype_and_statistics_are_float32s(policy):
    keras.config.set_dtype_policy(policy)
    try:
        found, expected = pair()
    finally:
        keras.config.set_dtype_policy("float32")
    assert found[0].dtype == policy.removeprefix("mixed_")
    step = 2**-10 if policy == "mixed_float16" else 2**-7
    np.testing.assert_allclose(np.float32(found[0]), np.float32(expected[0]), atol=8 * step)
    for a, b in zip(found[1:], expected[1:], strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=step, atol=step)


def operations(model, run=lambda call: call()):
    """The kinds of operation in the graph of one training call, which `run` makes."""
    images = tf.TensorSpec(model.input.shape)
    traced = tf.function(lambda x: run(lambda: model(x, training=True)), autograph=False)
    graph = traced.get_concrete_function(images).graph
    return [node.op for node in graph.as_graph_def().node]


def test_sites_in_batch_mode_are_one_kernel_and_frozen_ones_a_multiply_add():
    model = sure_net()
    sites = find_sites(model, images(1))
    for site, mode in zip(sites, MIXED, strict=True):
        site.follow(None) if mode == "batch" else site.freeze()
    with fast_sites(model, sites):
        found = operations(model)
    # two in batch mode: behind a convolution by its sums, behind a dense layer by the fused kernel
    assert found.count("DepthwiseConv2dNativeBackpropFilter") == found.count("FusedBatchNormV3") == 1
    # that of the sums, and that of the frozen site
    assert found.count("Rsqrt") == 2
    assert "SquaredDifference" not in found


@pytest.mark.parametrize("build", [wide_net, deep_net, preactivated_net])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_nan_is_seen_in_the_loss_of_its_step(build, policy):
    """As it would not be if a site were one kernel with its convolution, or with the ReLU behind it
    (tests/test_tensorflow_behaviour.py)."""
    x, model = images(16), build()
    x[3] = np.nan
    with fast_sites(model, sites_of(model, policy)):
        model.compile("sgd", "sparse_categorical_crossentropy")
        fitted = model.fit(x, np.arange(16) % CLASSES, batch_size=16, epochs=1, verbose=0)
    assert np.isnan(fitted.history["loss"][0])


def test_frozen_sites_are_a_part_of_the_convolution_in_front_of_them():
    """Kernels are multiplied by the scale, 3 x 3 and 1 x 1 ones, and nothing that the convolutions make."""
    model = wide_net()
    with fast_sites(model, sites_of(model, "freeze")):
        traced = tf.function(lambda x: model(x, training=True), autograph=False)
        graph = traced.get_concrete_function(tf.TensorSpec(model.input.shape)).graph
    scaled = [op for op in graph.get_operations() if op.type == "Mul" and op.outputs[0].shape.rank == 4]
    assert {op.outputs[0].shape[:2] for op in scaled} == {(3, 3), (1, 1)}
    assert sum(op.type == "EnsureShape" for op in graph.get_operations()) == 4


class Renamed(layers.BatchNormalization):
    """A subclass may compute anything."""


def unfusible(kind):
    inputs = keras.Input((6, 4))
    x = layers.Masking()(inputs) if kind == "mask" else inputs
    make = Renamed if kind == "subclass" else layers.BatchNormalization
    options = {"axis": {"axis": 1}, "float64": {"dtype": "float64"}, "renorm": {"renorm": True}}.get(kind, {})
    for _ in range(2):
        x = make(**options)(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize("kind", ["mask", "subclass", "axis", "float64", "renorm"])
def test_what_the_kernel_does_not_know_stays_keras_own(kind):
    model = unfusible(kind)
    sites = find_sites(model, np.ones((1, 6, 4), np.float32))
    own = operations(model)
    with fast_sites(model, sites):
        assert operations(model) == own
    assert "FusedBatchNormV3" not in own


def test_a_synchronised_site_in_a_replica_does_not_take_the_moments_of_its_share_alone():
    """What it takes is tested with several replicas, in tests/distribution."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    model = two_sites(synchronized=True)
    sites = find_sites(model, np.ones((1, 6, 4), np.float32))
    with fast_sites(model, sites):
        assert "FusedBatchNormV3" not in operations(model, strategy.run)
        assert operations(model).count("FusedBatchNormV3") == 2


def test_sites_that_are_never_built_are_left_alone():
    model = NETS["custom_layer"]()
    sites = find_sites(model, images(1))
    assert [site.built for site in sites].count(False) == 2
    with fast_sites(model, sites):
        compile_and_fit(model)


class Interrupted(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise RuntimeError("in the middle of an epoch")


def fit_interrupted(model, sites):
    with fast_sites(model, sites):
        assert all("call" in vars(site.layer) for site in sites)
        model.fit(images(), labels(), verbose=0, callbacks=[Interrupted()])


def test_the_calls_are_given_back_and_the_functions_dropped_also_when_fit_raises():
    model = sure_net()
    sites = sites_of(model, "retrain")
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(RuntimeError, match="in the middle"):
        fit_interrupted(model, sites)
    assert not any("call" in vars(site.layer) for site in sites)
    assert model.train_function is model.test_function is model.predict_function is None
    assert "FusedBatchNormV3" not in operations(model)


def test_a_model_trained_fast_is_saved_as_plain_keras(tmp_path):
    model = sure_net()
    with fast_sites(model, sites_of(model, "retrain")):
        compile_and_fit(model)
        model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert {type(layer) for layer in loaded.layers} == {type(layer) for layer in model.layers}
    np.testing.assert_array_equal(loaded.predict(images(), verbose=0), model.predict(images(), verbose=0))
