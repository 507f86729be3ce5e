"""The proof lets honest runs pass and names what did not hold."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

from finetune.batchnorm import proof
from finetune.batchnorm.kept import affine_kept, statistics_kept
from finetune.batchnorm.measure import Measurement
from finetune.batchnorm.moments import RunningStatistics
from finetune.batchnorm.promise import Promise
from finetune.batchnorm.sites import find_sites
from finetune.batchnorm.timeline import Timeline, read
from tests.nets import SIZE, compile_and_fit, custom_layer_net, images, with_baked_training_flag

FIXED = Promise(statistics="fixed", affine="fixed")
MEASURED = Promise(statistics="measured", affine="fixed")
FOLLOW = Promise(statistics="follow", affine="train")


def everywhere(promise, sites):
    return {site.path: promise for site in sites}


def timeline(before, after, trained=frozenset(), start=None, finish=None):
    return Timeline(before, before, after, after, start, finish, frozenset(trained))


def failed(checks):
    return [check.name for check in checks if not check.passed]


def test_a_frozen_model_is_verified(model, sites):
    before = read(sites)
    for site in sites:
        site.freeze()
    compile_and_fit(model)
    checks = proof.check(everywhere(FIXED, sites), timeline(before, read(sites)), sites, model, images(8))
    assert failed(checks) == []
    assert len(checks) == 5


def test_the_documented_keras_recipe_is_reported_as_not_frozen():
    """`base(x, training=False)` as in Keras' transfer learning guide, without freezing the layers (keras#20285)."""
    model, _ = with_baked_training_flag()
    sites = find_sites(model, images(1))
    before = read(sites)
    compile_and_fit(model)
    checks = proof.check(everywhere(FIXED, sites), timeline(before, read(sites)), sites, model, images(8))
    assert failed(checks) == ["running statistics are fixed", "gamma and beta are fixed"]
    detail = next(c.detail for c in checks if c.name == "running statistics are fixed")
    assert detail == (
        "NOT frozen: 3 of 3 sites differ from the pretrained ones: net/bn_1, net/bn_2, net/bn_3"
    )


@pytest.mark.parametrize("deep", [0, 1, 2])
def test_one_bit_in_one_site_is_enough(sites, deep):
    before = read(sites)
    statistics = sites[deep].statistics
    nudged = statistics.mean.copy()
    nudged[0] = np.nextafter(nudged[0], np.float32(10))
    sites[deep].store(RunningStatistics(nudged, statistics.variance))
    (check,) = statistics_kept(everywhere(FIXED, sites), timeline(before, read(sites)))
    assert not check.passed
    assert check.detail.endswith(f": {sites[deep].path}")


def test_measured_statistics_are_compared_with_the_measured_not_the_pretrained(sites):
    pretrained = read(sites)
    for site in sites:
        site.store(RunningStatistics(site.statistics.mean + 1, site.statistics.variance))
    measured = read(sites)
    honest = Timeline(pretrained, measured, measured, measured, Measurement(8, 0.0), None, frozenset())
    assert statistics_kept(everywhere(MEASURED, sites), honest)[0].passed
    drifted = replace(honest, finished=pretrained)
    assert not statistics_kept(everywhere(MEASURED, sites), drifted)[0].passed


def test_a_moved_gamma_is_named_where_affine_is_fixed(sites):
    before = read(sites)
    sites[1].layer.gamma.assign(sites[1].layer.gamma + 1e-6)
    (check,) = affine_kept(everywhere(FIXED, sites), timeline(before, read(sites)))
    assert not check.passed
    assert sites[1].path in check.detail


def test_retrained_sites_must_have_followed(sites):
    before = read(sites)
    (stuck,) = statistics_kept(
        everywhere(FOLLOW, sites), timeline(before, before, trained={s.path for s in sites})
    )
    assert not stuck.passed
    assert stuck.detail.startswith("0 of 3 trained sites moved")


def test_sites_outside_of_the_trained_part_must_stay(sites):
    before = read(sites)
    for site in sites:
        site.store(RunningStatistics(site.statistics.mean + 1, site.statistics.variance))
    followed, outside = statistics_kept(
        everywhere(FOLLOW, sites), timeline(before, read(sites), trained={sites[2].path})
    )
    assert followed.passed
    assert not outside.passed


@pytest.mark.parametrize(("residual", "passed"), [(1e-6, True), (0.05, False), (float("nan"), False)])
def test_a_measurement_must_equal_a_fresh_one(sites, residual, passed):
    readings = read(sites)
    (check,) = proof.measurements_exact(timeline(readings, readings, start=Measurement(64, residual)))
    assert check.passed is passed


@pytest.mark.parametrize(("mean", "variance"), [(np.nan, 1.0), (np.inf, 1.0), (0.0, -1e-9), (0.0, np.nan)])
def test_broken_statistics_are_named(sites, mean, variance):
    sites[1].store(RunningStatistics(np.full(6, mean, np.float32), np.full(6, variance, np.float32)))
    check = proof.finite(read(sites))
    assert not check.passed
    assert "net/bn_2" in check.detail or "bn_2" in check.detail


def test_layers_that_are_never_called_are_reported_and_not_counted():
    check = proof.all_reached(find_sites(custom_layer_net(), images(1)))
    assert check.passed
    assert check.detail == "2 sites found, 2 reached; 2 more layers are never called and hold no statistics"


def test_a_built_site_that_no_forward_pass_reaches_fails():
    class Overlooked(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.unused = (
                layers.BatchNormalization(name="used"),
                layers.BatchNormalization(name="unused"),
            )

        def build(self, shape):
            self.used.build(shape)
            self.unused.build(shape)

        def call(self, inputs, training=None):
            return self.used(inputs, training=training)

    model = Overlooked()
    model.build((None, SIZE, SIZE, 3))
    check = proof.all_reached(find_sites(model, images(1)))
    assert not check.passed
    assert check.detail == "2 sites found, 1 reached: unused"


@pytest.mark.parametrize("asked", ["called", "asked by a graph"])
def test_a_model_that_normalises_with_the_batch_in_service_is_caught(asked):
    class Stray(layers.BatchNormalization):
        def call(self, inputs, training=None, mask=None):
            return super().call(inputs, training=True, mask=mask)

    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Softmax()(Stray()(inputs)))
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    predict = None if asked == "called" else model.predict_on_batch
    check = proof.independent_of_batch_mates(model, x, predict)
    assert not check.passed


def test_what_is_asked_is_what_service_makes_of_a_batch(model):
    x = images(8)
    check = proof.independent_of_batch_mates(
        model, x, lambda batch: model(batch, training=False) + len(batch)
    )
    assert not check.passed
    assert proof.independent_of_batch_mates(model, x, model.predict_on_batch).passed
