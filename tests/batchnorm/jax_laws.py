"""What is stated under JAX alone, beside the laws of the neighbouring tests: run by `test_jax_backend.py`."""

import importlib
import pkgutil

import keras
import numpy as np
import pytest

from finetune import batchnorm, policies
from finetune.batchnorm.fast_sites import fast_sites
from finetune.batchnorm.measure import measure
from finetune.batchnorm.sites import find_sites
from tests.batchnorm.test_population import oracle, split, worst
from tests.nets import compile_and_fit, functional_net, images

TENSORFLOW_ONLY = {
    f"finetune.batchnorm.{name}"
    for name in (
        "batch_network",
        "batch_sites",
        "graph_function",
        "moment_nodes",
        "op_registry",
        "tf_network",
        "tracing",
        "written_nodes",
    )
}
"""Behind the question to the backend in finetune.batchnorm.live_model."""

MODULES = {
    module.name
    for package in (batchnorm, policies)
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + ".")
}


def test_this_is_jax_and_there_is_no_tensorflow():
    assert keras.backend.backend() == "jax"
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("tensorflow")


@pytest.mark.parametrize("name", sorted(MODULES - TENSORFLOW_ONLY))
def test_every_other_module_of_the_engine_can_be_imported(name):
    assert importlib.import_module(name)


def test_layerwise_statistics_are_those_that_the_float64_network_sees_under_them(model, sites):
    batches = split(images(48, loc=0.4), 20, 20)
    measurement = measure(model, sites, lambda: batches)
    assert (measurement.method, measurement.images) == ("layerwise", 48)
    assert measurement.residual < 1e-5
    seen = oracle(model, batches, normalise_with_batch=False)
    stored = [site.statistics for site in sites]
    assert worst(stored, seen) < 2e-5


def test_fast_sites_leave_the_sites_to_keras():
    stock = functional_net()
    compile_and_fit(stock)
    # seeds the order of the images and the dropout anew
    ours = functional_net()
    with fast_sites(ours, find_sites(ours, images(1))):
        compile_and_fit(ours)
    for theirs, same in zip(stock.weights, ours.weights, strict=True):
        np.testing.assert_allclose(*map(keras.ops.convert_to_numpy, (same, theirs)), rtol=1e-5, atol=1e-6)
