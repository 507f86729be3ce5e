"""A network without BN is no mistake: every policy has nothing to act on, and says so."""

import keras
import pytest
from keras import layers

import finetune
from finetune.outlook import outlook
from finetune.policies import POLICIES
from finetune.stage import Stage
from finetune.trained_part import Trainee
from tests.nets import compile_and_fit, images

ALL = Stage(train="everything", epochs=1, learning_rate=0.1)


def net():
    inputs = keras.Input((8, 8, 3))
    features = layers.LayerNormalization()(layers.Conv2D(4, 3, activation="gelu")(inputs))
    backbone = keras.Model(inputs, features, name="backbone")
    images = keras.Input((8, 8, 3))
    pooled = layers.GlobalAveragePooling2D()(backbone(images))
    return keras.Model(images, layers.Dense(3, activation="softmax")(pooled))


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.model_fields["policy"].default)
def test_every_policy_goes_through_and_promises_nothing(policy):
    model = net()
    applied = finetune.apply(policy(), model, images(16))
    compile_and_fit(model)
    assert applied.finish().measurement is None
    assert all(check.passed for check in applied.prove())
    assert applied.sites == ()


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.model_fields["policy"].default)
def test_it_is_told_before_the_training(policy):
    model = net()
    ahead = outlook(Trainee(model, model.get_layer("backbone"), ()), policy(), [ALL], 10, 16)
    name = policy.model_fields["policy"].default
    assert ahead.problems == ()
    assert ahead.warnings == (f"the network has no BN site: the policy {name} has nothing to act on",)
