"""Steps that outlive a compile: traced once, on the variables of whoever trains, and never under other settings."""

import keras
import numpy as np
import pytest
from keras import layers

from finetune.batchnorm.fast_sites import fast_sites
from finetune.batchnorm.measure import measure
from finetune.batchnorm.sites import find_sites
from finetune.comparison.kept_graphs import KeepsGraphs
from finetune.compiling import compile_stage
from finetune.stage import Stage
from tests.nets import CLASSES, SIZE, functional_net, images, labels


class Counted(KeepsGraphs):
    """Counts how often its training step runs as Python, which is when it is traced."""

    traced = 0

    def train_step(self, data):
        self.traced += 1
        return super().train_step(data)


def batches(count=48):
    from tensorflow.data import Dataset

    return Dataset.from_tensor_slices((images(count), labels(count))).batch(16)


def trained(model, rate=0.05, **stage):
    """Its weights after a training from where it stands, what `fit` said, and what it predicts then."""
    sites = find_sites(model, images(1))
    with fast_sites(model, sites):
        compile_stage(model, Stage(train="everything", epochs=2, learning_rate=rate, **stage), 6)
        said = model.fit(batches(), validation_data=batches(20), epochs=2, verbose=0, shuffle=False).history
    answers = [model.predict(images(20), verbose=0), model.predict_on_batch(images(3))]
    return [*model.get_weights(), *answers], said


def same(some, others):
    return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))


@pytest.fixture
def kept():
    return Counted(functional_net())


def test_it_trains_says_and_predicts_what_a_plain_model_does(kept):
    (weights, said), (plain, plainly) = trained(kept), trained(functional_net())
    assert same(weights, plain)
    assert said == plainly


def test_a_second_training_runs_on_the_graph_of_the_first_and_knows_nothing_of_it(kept):
    state = [variable.numpy() for variable in kept.variables]
    first, said = trained(kept)
    for variable, value in zip(kept.variables, state, strict=True):
        variable.assign(value)
    again, says = trained(kept)
    assert kept.traced == 1
    assert same(first, again)
    assert said == says


@pytest.mark.parametrize("change", ["optimizer", "momentum of a site", "what trains"])
def test_under_other_settings_it_is_traced_anew(kept, change):
    plain = functional_net()
    for model in (kept, plain):
        state = [variable.numpy() for variable in model.variables]
        trained(model)
        for variable, value in zip(model.variables, state, strict=True):
            variable.assign(value)
        if change == "momentum of a site":
            model.get_layer("bn_2").momentum = 0.5
        if change == "what trains":
            model.get_layer("conv_1").trainable = False
    how = {"optimizer": {"momentum": 0.5}}.get(change, {})
    assert same(trained(kept, **how)[0], trained(plain, **how)[0])
    assert kept.traced == 2


@pytest.mark.parametrize(
    "stage",
    [
        {"warmup": 0.5},
        {"warmup": 0.0, "schedule": "constant", "optimizer": "adam"},
    ],
)
def test_another_learning_rate_runs_on_the_same_graph(kept, stage):
    plain = functional_net()
    state = [variable.numpy() for variable in kept.variables]
    trained(kept, **stage)
    for variable, value in zip(kept.variables, state, strict=True):
        variable.assign(value)
    assert same(trained(kept, 0.01, **stage)[0], trained(plain, 0.01, **stage)[0])
    assert kept.traced == 1


class Noise(layers.Layer):
    """Draws without a seed of its own: what it draws is decided when it is traced."""

    def call(self, inputs, training=None):
        return inputs + keras.random.normal((4,)) if training else inputs


def test_a_graph_that_drew_random_numbers_is_not_kept():
    inputs = keras.Input((SIZE, SIZE, 3))
    hidden = layers.Flatten()(Noise()(layers.Conv2D(4, 1)(inputs)))
    model = Counted(keras.Model(inputs, layers.Dense(CLASSES, activation="softmax")(hidden)))
    trained(model)
    once = model.traced
    trained(model)
    assert model.traced > once
    # in inference mode it draws nothing
    assert {key[0].split()[0] for key in model.kept_graphs} == {"test", "predict"}


def test_statistics_are_measured_through_graphs_that_are_made_once(kept):
    plain = functional_net()
    calls = []
    for model in (kept, plain):
        sites = find_sites(model, images(1))
        for brightness in (0.0, 2.0):
            shown = images(40, loc=brightness)
            measured = measure(model, sites, lambda shown=shown: [shown[:24], shown[24:]])
            calls.append([measured.residual, *(site.statistics.mean for site in sites)])
    assert same(calls[0] + calls[1], calls[2] + calls[3])
    assert [key[0] for key in kept.kept_graphs] == ["traced"]
