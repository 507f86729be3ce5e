"""Labels that are shares of classes: the loss against NumPy float64, and a model that loads without the toolkit."""

import keras
import numpy as np
import pytest

from finetune.objective import Crossentropy, accuracy, smoothed
from finetune.policies import Freeze
from finetune.stage import Stage
from tests.nets import CLASSES, images, labels
from tests.test_train import batches, fit, trainee

RANDOM = np.random.default_rng(0)
PROBABILITIES = RANDOM.dirichlet(np.ones(CLASSES), 20)
NUMBERS = RANDOM.integers(0, CLASSES, 20)


def test_smoothed_labels_are_shares_that_sum_to_one():
    shares = np.asarray(smoothed(NUMBERS.astype(np.int32), CLASSES, 0.3))
    np.testing.assert_allclose(shares.sum(1), 1.0, atol=1e-6)
    np.testing.assert_allclose(shares[np.arange(20), NUMBERS], 0.7 + 0.3 / CLASSES, atol=1e-6)
    np.testing.assert_allclose(np.sort(shares, 1)[:, :-1], 0.3 / CLASSES, atol=1e-6)


def test_smoothing_twice_is_smoothing_of_shares():
    twice = smoothed(smoothed(NUMBERS.astype(np.int32), CLASSES, 0.3), CLASSES, 0.5)
    once = smoothed(NUMBERS.astype(np.int32), CLASSES, 1 - 0.7 * 0.5)
    np.testing.assert_allclose(np.asarray(twice), np.asarray(once), atol=1e-6)


@pytest.mark.parametrize("shares", [False, True])
def test_cross_entropy_and_accuracy_of_numbers_and_of_shares(shares):
    true = PROBABILITIES[::-1] if shares else np.eye(CLASSES)[NUMBERS]
    expected = -(true * np.log(PROBABILITIES)).sum(1).mean()
    given = (true if shares else NUMBERS).astype(np.float32)
    found = Crossentropy()(given, PROBABILITIES.astype(np.float32))
    assert float(found) == pytest.approx(expected, abs=1e-5)
    hits = (true.argmax(1) == PROBABILITIES.argmax(1)).mean()
    assert float(np.mean(accuracy(given, PROBABILITIES))) == pytest.approx(hits)


def cross_entropies(model, smoothing):
    """NumPy float64: of the training images, with smoothed labels and with those that are there."""
    probabilities = np.asarray(model(images(48), training=False), np.float64)
    logs, true = np.log(probabilities), np.eye(CLASSES)[labels(48)]
    spread = (1 - smoothing) * true + smoothing / CLASSES
    return -(spread * logs).sum(1).mean(), -(true * logs).sum(1).mean()


def test_a_stage_minimises_smoothed_labels_and_is_validated_on_true_ones():
    subject, seen = trainee(), []
    smooth, plain = cross_entropies(subject.model, 0.4)
    still = Stage(train="everything", epochs=1, learning_rate=1e-9, label_smoothing=0.4)
    fit(still, Freeze(), subject, log=lambda epoch, metrics: seen.append(metrics))
    # dropout is on in training
    assert seen[0]["train/loss"] == pytest.approx(smooth, abs=4e-3)
    assert seen[0]["validation/loss"] == pytest.approx(plain, abs=1e-4)
    assert abs(smooth - plain) > 1e-2


def test_what_a_stage_leaves_loads_without_the_toolkit(tmp_path):
    subject = trainee()
    fit(Stage(train="everything", epochs=1, learning_rate=0.01, label_smoothing=0.1), Freeze(), subject)
    subject.model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.loss == subject.model.loss == "sparse_categorical_crossentropy"
    found = loaded.evaluate(batches(), verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(cross_entropies(loaded, 0.0)[1], abs=1e-4)
