"""Every variable moves by its share of the rate, whatever the optimizer."""

import keras
import numpy as np
import pytest
from pydantic import ValidationError

from finetune.batchnorm.sites import find_sites
from finetune.compiling import compile_stage, compile_with
from finetune.depth_rates import shares_by_depth
from finetune.policies import Retrain
from finetune.stage import FromLayer, Stage
from finetune.trained_part import Trainee, choose_trained
from tests.nets import SIZE, functional_net, images, labels, nested_net

FIRST = 0.01


def trainee(make=functional_net):
    backbone = make()
    features = keras.Model(backbone.inputs, backbone.layers[-2].output, name="features")
    model = keras.Sequential([features, keras.layers.Dense(3, activation="softmax", name="head")])
    model.build((None, SIZE, SIZE, 3))
    return Trainee(model, features, find_sites(model, images(1)))


def moves(rate_at_first_layer, train="everything", **keys):
    """How far one step takes each variable: (path, move)."""
    subject = trainee()
    stage = Stage(
        train=train,
        epochs=1,
        learning_rate=1e-3,
        schedule="constant",
        warmup=0,
        rate_at_first_layer=rate_at_first_layer,
        **keys,
    )
    choose_trained(subject, stage.train)
    compile_stage(subject.model, stage, 1, backbone=subject.backbone)
    before = [np.array(v) for v in subject.model.trainable_variables]
    keras.utils.set_random_seed(0)
    # twice: a compile that goes on with the optimizer keeps the rates
    compile_with(subject.model, subject.model.optimizer)
    subject.model.train_on_batch(images(8), labels(8))
    after = subject.model.trainable_variables
    return [(v.path, np.array(v) - was) for v, was in zip(after, before, strict=True)]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_step_is_that_of_the_whole_rate_times_the_share(optimizer):
    keys = {"momentum": 0.0} if optimizer == "sgd" else {}
    whole, scaled = moves(1.0, optimizer=optimizer, **keys), moves(FIRST, optimizer=optimizer, **keys)
    depth = ["conv_1", "bn_1", "conv_2", "bn_2", "dense", "bn_3", "head"]
    for (path, move), (_, slower) in zip(whole, scaled, strict=True):
        share = FIRST ** (1 - next(n for n, name in enumerate(depth) if name in path) / 6)
        # of the float32 weight that moves
        np.testing.assert_allclose(slower, share * move, rtol=2e-2, atol=2e-7, err_msg=path)
    assert np.abs(whole[0][1]).max() > 1e-5


def test_the_saved_model_has_an_optimizer_of_plain_keras(tmp_path):
    subject = trainee()
    stage = Stage(train="everything", epochs=1, learning_rate=0.1, rate_at_first_layer=FIRST)
    compile_stage(subject.model, stage, 10, backbone=subject.backbone)
    subject.model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is keras.optimizers.SGD


def test_depth_does_not_depend_on_what_is_frozen():
    subject = trainee()
    before = shares_by_depth(subject.backbone, FIRST)
    choose_trained(subject, FromLayer(**{"from": "conv_2"}))
    Retrain().prepare(subject.sites, trained=subject.sites[1:], steps_per_epoch=1)
    assert shares_by_depth(subject.backbone, FIRST) == before
    assert min(before.values()) == FIRST


def test_layers_inside_of_nested_models_have_a_depth_each():
    subject = nested_net()
    shares = shares_by_depth(subject, FIRST)
    assert len(set(shares.values())) == 8
    assert len(shares) == len(subject.trainable_variables)


def test_a_head_alone_has_no_depth():
    with pytest.raises(ValidationError, match="the head has one rate"):
        Stage(train="head", epochs=1, learning_rate=0.1, rate_at_first_layer=0.1)
