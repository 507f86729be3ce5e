"""Metrics of multi-label probabilities against scikit-learn, Keras and sums by hand."""

import keras
import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    hamming_loss,
    roc_auc_score,
)

from finetune.evaluate import score
from finetune.flag_scores import entropy_of_guessing, score_flags
from finetune.result import ClassCounts


@pytest.fixture
def answers():
    random = np.random.default_rng(0)
    flags = (random.random((400, 5)) < [0.5, 0.2, 0.1, 0.3, 0.7]).astype(np.int32)
    logits = 3 * random.normal(size=flags.shape) + 2 * flags - 1
    return 1 / (1 + np.exp(-logits)), flags


def test_metrics_equal_those_of_scikit_learn(answers):
    probabilities, flags = answers
    told, metrics = probabilities > 0.5, score(probabilities, flags, 5).metrics
    each = range(flags.shape[1])
    assert metrics["accuracy"] == pytest.approx(1 - hamming_loss(flags, told))
    assert metrics["exact_match"] == pytest.approx(accuracy_score(flags, told))
    assert metrics["macro_f1"] == pytest.approx(f1_score(flags, told, average="macro"))
    assert metrics["micro_f1"] == pytest.approx(f1_score(flags, told, average="micro"))
    assert metrics["roc_auc"] == pytest.approx(roc_auc_score(flags, probabilities, average="macro"))
    assert metrics["average_precision"] == pytest.approx(average_precision_score(flags, probabilities))
    by_class = [balanced_accuracy_score(flags[:, c], told[:, c]) for c in each]
    assert metrics["balanced_accuracy"] == pytest.approx(np.mean(by_class))


def test_the_cross_entropy_is_what_keras_minimises(answers):
    probabilities, flags = answers
    loss = float(np.mean(keras.losses.binary_crossentropy(flags.astype("float32"), probabilities)))
    assert score_flags(probabilities, flags).metrics["cross_entropy"] == pytest.approx(loss, rel=1e-5)


def test_one_wrong_answer_that_is_sure_costs_sixteen_nats_and_no_infinity():
    given = score_flags(np.array([[1.0, 0.0]]), np.array([[0, 0]]))
    assert given.metrics["cross_entropy"] == pytest.approx(-np.log(1e-7) / 2, rel=1e-3)


def test_answers_that_are_as_sure_as_right_have_no_calibration_error():
    probabilities, flags = np.full((10, 2), [0.8, 0.3]), np.zeros((10, 2), int)
    flags[:8, 0] = flags[:3, 1] = 1
    assert score_flags(probabilities, flags).metrics["expected_calibration_error"] == pytest.approx(0)
    flags[:, 0] = 0
    assert score_flags(probabilities, flags).metrics["expected_calibration_error"] == pytest.approx(0.4)


def test_every_image_of_a_class_is_found_or_missed(answers):
    probabilities, flags = answers
    counts = score_flags(probabilities, flags).by_class
    told = probabilities > 0.5
    assert [each.images for each in counts] == flags.sum(0).tolist()
    assert [each.found + each.false for each in counts] == told.sum(0).tolist()
    assert counts[0].recall == pytest.approx(told[flags[:, 0] == 1, 0].mean())
    assert counts[0].precision == pytest.approx(flags[told[:, 0], 0].mean())
    assert np.isnan(ClassCounts(0, 0, 0).recall)
    assert np.isnan(ClassCounts(0, 3, 0).precision)


def test_a_class_that_no_image_shows_or_that_all_show_is_not_ranked(answers):
    """Two more classes, one of nobody and one of everybody, leave the rankings as they were."""
    probabilities, flags = answers
    wider = np.column_stack([flags, np.zeros(400, int), np.ones(400, int)])
    given = np.column_stack([probabilities, np.full((400, 2), 0.4)])
    narrow, wide = score_flags(probabilities, flags).metrics, score_flags(given, wider).metrics
    for name in ("roc_auc", "average_precision", "balanced_accuracy"):
        assert wide[name] == pytest.approx(narrow[name])
    none = score_flags(probabilities, np.zeros_like(flags)).metrics
    assert set(none) == {"accuracy", "exact_match", "cross_entropy", "expected_calibration_error"}


def test_guessing_costs_the_entropy_of_the_classes():
    flags = np.zeros((8, 2), int)
    flags[:4, 0] = flags[:2, 1] = 1
    quarter = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    assert entropy_of_guessing(flags) == pytest.approx((np.log(2) + quarter) / 2)
