"""The temperature is that of the lowest cross-entropy, and the model has it inside."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from finetune.temperature import HIGHEST, at_temperature, divide_logits, fitted_temperature
from tests.nets import functional_net, images


def drawn(temperature, count=20_000, classes=4, seed=0):
    """Labels drawn from the probabilities, and what a model says that is too sure by this temperature."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1.5, (count, classes))
    true = softmax(logits)
    labels = (random.random((count, 1)) > true.cumsum(1)).sum(1).clip(0, classes - 1)
    return softmax(logits * temperature), labels


def softmax(logits):
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    return exponents / exponents.sum(1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(temperature):
    assert fitted_temperature(*drawn(temperature)) == pytest.approx(temperature, rel=0.05)


@given(st.floats(0.3, 5), st.integers(0, 100))
@settings(max_examples=20)
def test_no_neighbour_has_a_lower_cross_entropy(temperature, seed):
    probabilities, labels = drawn(temperature, 300, seed=seed)
    found = fitted_temperature(probabilities, labels)
    losses = [log_loss(labels, at_temperature(probabilities, found * factor)) for factor in (0.98, 1, 1.02)]
    assert losses[1] <= min(losses) + 1e-9


def test_labels_by_chance_end_at_the_bound():
    probabilities, _ = drawn(1.0, 2000)
    wrong = probabilities.argmin(1)
    assert fitted_temperature(probabilities, wrong) == pytest.approx(HIGHEST, rel=0.01)


def test_the_model_has_it_inside_and_predicts_the_same_classes():
    model, x = functional_net(), images(16)
    before = np.asarray(model(x, training=False), np.float64)
    divide_logits(model, 2.5)
    after = np.asarray(model(x, training=False), np.float64)
    np.testing.assert_allclose(after, at_temperature(before, 2.5), atol=1e-6)
    np.testing.assert_array_equal(after.argmax(1), before.argmax(1))
    assert isinstance(model.layers[-1], keras.layers.Dense)
