"""The linear head: pooling, softmax in float32, and classifiers that came with the weights."""

import keras
import numpy as np
import pytest
from pydantic import ValidationError

from finetune.classifier import Classifier
from finetune.errors import WeightsError
from finetune.heads import Linear

FEATURES = np.random.default_rng(0).normal(size=(4, 3, 3, 5)).astype(np.float32)
KERNEL = np.random.default_rng(1).normal(size=(5, 2)).astype(np.float32)
CLASSIFIER = Classifier(KERNEL, np.float32([0.5, -0.5]), ("cat", "dog"))


def attached(head, shape=(3, 3, 5), names=("cat", "dog"), classifier=CLASSIFIER):
    features = keras.Input(shape)
    return keras.Model(features, head.attach(features, names, classifier))


def refusal(head, **given):
    with pytest.raises(WeightsError) as caught:
        attached(head, **given)
    return str(caught.value)


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def test_pretrained_is_the_classifier_on_the_mean_over_positions():
    expected = softmax(FEATURES.astype(np.float64).mean((1, 2)) @ KERNEL + [0.5, -0.5])
    np.testing.assert_allclose(attached(Linear(weights="pretrained"))(FEATURES), expected, atol=1e-6)


def test_features_without_positions_are_taken_as_they_are():
    model = attached(Linear(weights="pretrained"), shape=(5,))
    expected = softmax(FEATURES[:, 0, 0].astype(np.float64) @ KERNEL + [0.5, -0.5])
    np.testing.assert_allclose(model(FEATURES[:, 0, 0]), expected, atol=1e-6)


def test_a_new_head_does_not_start_from_the_classifier():
    assert not np.allclose(attached(Linear()).get_layer("classes").kernel, KERNEL)


def test_dropout_and_hidden_layers_come_before_the_classes():
    model = attached(Linear(dropout=0.25, hidden=(7, 6)))
    assert [layer.name for layer in model.layers[1:]] == [
        "pool",
        "dropout",
        "hidden_1",
        "hidden_2",
        "classes",
    ]
    assert model.get_layer("dropout").rate == 0.25
    assert [model.get_layer(f"hidden_{i}").units for i in (1, 2)] == [7, 6]


def test_probabilities_are_float32_under_mixed_precision():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = attached(Linear(hidden=(4,)))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert model.get_layer("hidden_1").compute_dtype == "float16"
    assert model.output.dtype == "float32"


def test_class_count_that_does_not_match_the_weights():
    assert refusal(Linear(weights="pretrained"), names=("cat", "dog", "fox")) == (
        "head.weights: class count does not match the weights: the pretrained classifier has 2 classes, "
        "the data 3; use new"
    )


def test_class_names_that_do_not_match_the_weights():
    assert refusal(Linear(weights="pretrained"), names=("dog", "cat")) == (
        "head.weights: class names do not match the weights: 'cat' in the pretrained classifier is 'dog' "
        "in the data (2 of 2 differ); use new"
    )


def test_a_classifier_without_names_is_held_to_its_count_alone():
    nameless = Classifier(KERNEL, CLASSIFIER.bias, ())
    model = attached(Linear(weights="pretrained"), names=("dog", "cat"), classifier=nameless)
    np.testing.assert_array_equal(model.get_layer("classes").kernel, KERNEL)


def test_a_backbone_without_a_classifier():
    assert refusal(Linear(weights="pretrained"), classifier=None) == (
        "head.weights: pretrained, but this backbone comes without a classifier; use new"
    )


def test_features_that_are_no_image_features():
    assert "takes (batch, height, width, channels) or (batch, channels)" in refusal(Linear(), shape=(7, 5))


def test_pretrained_and_hidden_exclude_each_other():
    with pytest.raises(ValidationError, match="leave hidden out, or take weights: new"):
        Linear(weights="pretrained", hidden=(8,))
