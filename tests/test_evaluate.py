"""Metrics against scikit-learn and against numbers worked out by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    roc_auc_score,
)

from finetune.errors import InputError
from finetune.evaluate import evaluate_views, expected_calibration_error, score
from finetune.evaluation_run import evaluate_saved
from tests.datasets.pictures import two_classes


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


@pytest.mark.parametrize("classes", [2, 4])
def test_ranking_and_f1_equal_those_of_scikit_learn(predictions, classes):
    probabilities, labels = predictions
    kept = labels < classes
    probabilities, labels = probabilities[kept][:, :classes], labels[kept]
    probabilities = probabilities / probabilities.sum(1, keepdims=True)
    metrics = score(probabilities, labels, classes).metrics
    given = probabilities[:, 1] if classes == 2 else probabilities
    assert metrics["roc_auc"] == pytest.approx(roc_auc_score(labels, given, multi_class="ovr"))
    one_hot = np.eye(classes)[labels]
    assert metrics["average_precision"] == pytest.approx(average_precision_score(one_hot, probabilities))
    assert metrics["macro_f1"] == pytest.approx(f1_score(labels, probabilities.argmax(1), average="macro"))


def test_ranking_and_f1_are_of_the_classes_that_occur(predictions):
    """A fifth class that no image has, and that none is taken for, changes nothing."""
    probabilities, labels = predictions
    wider = np.column_stack([probabilities, np.zeros(len(labels))])
    narrow, wide = score(probabilities, labels, 4).metrics, score(wider, labels, 5).metrics
    assert wide == pytest.approx(narrow)


def test_the_order_is_worth_the_same_under_any_growing_change(predictions):
    probabilities, labels = predictions
    changed = score(probabilities**3, labels, 4).metrics
    before = score(probabilities, labels, 4).metrics
    assert changed["roc_auc"] == pytest.approx(before["roc_auc"])
    assert changed["average_precision"] == pytest.approx(before["average_precision"])


def test_one_class_alone_is_not_ranked():
    assert "roc_auc" not in score(np.eye(3)[[0, 0]], np.array([0, 0]), 3).metrics


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


def test_views_are_averaged_in_probability_and_the_plain_image_is_one_of_them(tmp_path):
    inputs = keras.Input((8, 8, 3))
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    keras.utils.set_random_seed(0)
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(flat))
    model.save(tmp_path / "model.keras")
    two_classes(tmp_path / "pictures", cats=40, dogs=40)
    (tmp_path / "recipe.yaml").write_text(
        f"""
backbone: {{source: bundled}}
data: {{source: image_folder, path: {tmp_path}/pictures}}
batchnorm: {{policy: freeze}}
stages: [{{train: head, epochs: 1, learning_rate: 0.1}}]
"""
    )
    brighter = "data.augment=[{layer: RandomBrightness, options: {factor: 0.5}}]"
    plain = evaluate_saved(tmp_path / "model.keras")
    # an augmentation that changes nothing changes nothing
    same = evaluate_saved(
        tmp_path / "model.keras",
        overrides=["data.augment=[{layer: RandomBrightness, options: {factor: 0}}]"],
        views=3,
    )
    assert same.metrics == pytest.approx(plain.metrics, abs=1e-6)
    some, again = (evaluate_saved(tmp_path / "model.keras", overrides=[brighter], views=4) for _ in range(2))
    assert some.metrics == again.metrics
    assert abs(some.metrics["cross_entropy"] - plain.metrics["cross_entropy"]) > 1e-4
    with pytest.raises(InputError, match=r"^--views: more than one view of an image needs an augmentation"):
        evaluate_saved(tmp_path / "model.keras", views=2)


def test_the_mean_of_the_views_by_hand():
    labels = np.array([0, 1, 1])
    rows = [np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]), np.array([[0.5, 0.5], [0.2, 0.8], [0.6, 0.4]])]
    given = iter(rows)

    class Saying:
        def predict(self, batches, verbose):
            return next(given)

    views = [tf.data.Dataset.from_tensors((np.zeros((3, 1)), labels))] * 2
    mean = evaluate_views(Saying(), views, 2)
    assert mean.metrics["cross_entropy"] == pytest.approx(-np.log([0.7, 0.6, 0.6]).mean())
    assert mean.metrics["accuracy"] == 1
