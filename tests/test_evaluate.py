"""Metrics against scikit-learn and against numbers worked out by hand."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, log_loss

from finetune.evaluate import expected_calibration_error, score


@pytest.fixture
def predictions():
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 500)
    logits = random.normal(size=(500, 4)) + 2 * np.eye(4)[labels] * random.random((500, 1))
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True), labels


def test_metrics_equal_those_of_scikit_learn(predictions):
    probabilities, labels = predictions
    metrics = score(probabilities, labels, 4).metrics
    predicted = probabilities.argmax(1)
    assert metrics["accuracy"] == pytest.approx((predicted == labels).mean())
    assert metrics["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert metrics["cross_entropy"] == pytest.approx(log_loss(labels, probabilities))


def test_the_confusion_matrix_has_true_classes_in_rows():
    probabilities = np.eye(3)[[0, 1, 1, 2]]
    evaluation = score(probabilities, np.array([0, 0, 1, 2]), 3)
    assert evaluation.confusion == ((1, 1, 0), (0, 1, 0), (0, 0, 1))
    assert evaluation.count == 4


def test_a_class_without_images_is_left_out_of_the_balanced_accuracy():
    evaluation = score(np.eye(3)[[0, 0]], np.array([0, 0]), 3)
    assert evaluation.metrics["balanced_accuracy"] == 1.0


def test_one_sure_mistake_costs_a_finite_number_of_nats():
    evaluation = score(np.eye(2)[[1]], np.array([0]), 2)
    assert evaluation.metrics["cross_entropy"] == pytest.approx(-np.log(1e-7))


def test_the_calibration_error_is_the_gap_of_confidence_and_accuracy():
    # ten predictions at 0.8 of which six are right
    probabilities = np.tile([0.8, 0.2], (10, 1))
    labels = np.array([0] * 6 + [1] * 4)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.2)


def test_gaps_of_different_bins_do_not_cancel():
    # over-confident in one bin, under-confident in another: the mean gap is 0, the error is not
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10)
    labels = np.array([0] * 6 + [1] * 4 + [0] * 9 + [1] * 1)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.3)


def test_sure_and_right_is_calibrated():
    assert expected_calibration_error(np.eye(3), np.arange(3)) == 0.0
