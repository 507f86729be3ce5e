"""Whatever a model puts out becomes probabilities, or nothing."""

import numpy as np
import pytest

from finetune.recalibration.predictions import agreement, as_probabilities


def test_probabilities_stay_as_they_are_even_in_half_precision():
    given = np.random.default_rng(0).dirichlet(np.ones(7), 20).astype(np.float16)
    np.testing.assert_array_equal(as_probabilities(given), given.astype(np.float64))


def test_logits_become_their_softmax():
    logits = np.array([[1000.0, 999.0], [-3.0, 2.0]])
    found = as_probabilities(logits)
    np.testing.assert_allclose(
        found, [[1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))], [1 / (1 + np.exp(5)), 1 / (1 + np.exp(-5))]]
    )


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_one_output_is_the_probability_of_the_second_of_two_classes(shape):
    found = as_probabilities(np.array([0.2, 0.9, 0.5]).reshape(shape))
    np.testing.assert_allclose(found, [[0.8, 0.2], [0.1, 0.9], [0.5, 0.5]])
    np.testing.assert_allclose(
        as_probabilities(np.array([[0.0], [-800.0], [5.0]]))[:, 1], [0.5, 0, 1 / (1 + np.exp(-5))], atol=1e-12
    )


@pytest.mark.parametrize(
    "other",
    [np.zeros((2, 4, 4, 3)), np.zeros((0, 5)), np.array([[0.1, np.nan]]), np.array([[0.9, 0.8], [0.1, 0.0]])],
)
def test_what_has_no_class_is_nothing(other):
    assert as_probabilities(other) is None


def test_agreement_is_the_share_of_equal_classes():
    assert agreement(np.eye(4), np.eye(4)[[0, 1, 3, 2]]) == 0.5
