"""A stage that trains only the head runs the backbone once, and ends as if it had run it in every epoch."""

import keras
import numpy as np
import pytest
from pydantic import ValidationError

from finetune.datasets.batches import class_weights, evaluation_batches, training_batches
from finetune.errors import DivergedError
from finetune.orders import Orders
from finetune.policies import Freeze, Retrain
from finetune.progress import Progress
from finetune.stage import Stage
from finetune.train import Material, fit_frozen_epochs, fit_stage, following_epochs
from tests.feature_cache.samples import EVALUATION_BATCH, nested_backbone, source, trainee, unseeded_backbone
from tests.nets import CLASSES, images

TITLE = "stage 1 of 1"
FLIPPED = {"augment": ({"layer": "RandomFlip", "options": {"mode": "horizontal_and_vertical"}},)}


class Heard(Progress):
    """What a person would see, in order."""

    def __init__(self):
        self.phases, self.notes, self.shares, self.batches = [], [], [], []
        self.open = False

    def phase(self, words):
        self.phases.append(words)

    def note(self, words):
        self.notes.append(words)

    def share(self, done):
        self.shares.append(done)
        self.open = True

    def stage(self, title, epochs, steps, batch_size, done=0, step=0):
        assert not self.open, "the bar of the backbone's run is still there"
        self.steps = steps

    def batch(self, step, loss, accuracy):
        self.batches.append(step)

    def close(self):
        self.open = False


def head(epochs=3, **keys):
    return Stage(train="head", epochs=epochs, **{"learning_rate": 0.3, "schedule": "constant", **keys})


def material(data, weighted=False):
    train = data.splits.train
    return Material(
        Orders(training_batches(train, data.dataset, data.seed)),
        evaluation_batches(data.splits.validation, EVALUATION_BATCH),
        train.count // data.dataset.batch_size,
        data.dataset.batch_size,
        CLASSES,
        class_weights(train, CLASSES) if weighted else None,
        lambda limit=None: [images(24)[:limit]],
        data,
    )


def trained(stage, policy=None, subject=None, data=None, weighted=False):
    """Both parts of a last stage: the trainee, what was heard, every epoch's metrics, the last outcome."""
    subject, policy, logged, heard = subject or trainee(), policy or Freeze(), [], Heard()
    fed = material(data or source(), weighted)
    rest = (stage, TITLE, fed, heard, lambda epoch, metrics: logged.append(metrics))
    outcome = fit_stage(subject, policy, *rest, epochs=following_epochs(policy, [stage], 0))
    if policy.frozen_epochs:
        outcome = fit_frozen_epochs(subject, policy, *rest)
    return subject, heard, logged, outcome


def assert_same(one, other):
    (first, _, logged, outcome), (second, _, expected, reference) = one, other
    for a, b in zip(first.model.get_weights(), second.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert len(logged) == len(expected)
    for metrics, known in zip(logged, expected, strict=True):
        assert metrics == pytest.approx(known, rel=1e-4, abs=1e-5)
    assert outcome.validation_loss == pytest.approx(reference.validation_loss, rel=1e-4)
    assert [note.rpartition(";")[2] for note in outcome.notes] == [
        note.rpartition(";")[2] for note in reference.notes
    ]


CASES = {
    "freeze": (Freeze(), {}),
    "retrain, whose sites stand still outside what is trained": (Retrain(), {}),
    "an average of the weights": (Freeze(), {"ema": 0.6}),
    "early stopping": (Freeze(), {"epochs": 12, "learning_rate": 8.0, "warmup": 0.0, "early_stopping": 1}),
    "adamw and a cosine": (Freeze(), {"optimizer": "adamw", "schedule": "cosine", "learning_rate": 0.01}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_stage_with_features_ends_as_one_without(case):
    policy, keys = CASES[case]
    one = trained(head(**keys), policy, trainee(nested_backbone), weighted=True)
    other = trained(head(cache_features="off", **keys), policy, trainee(nested_backbone), weighted=True)
    assert_same(one, other)
    assert (len(one[1].shares) > 0, other[1].shares) == (True, [])
    if case == "early stopping":
        assert len(one[2]) < 12, "the test needs a rate at which the stage stops early"


def test_frozen_epochs_at_the_end_go_on_with_features_and_the_schedule():
    policy, stage = Retrain(freeze_last_epochs=1), {"schedule": "cosine"}
    before = trainee().backbone.get_weights()
    subject, heard, logged, _ = trained(head(**stage), policy)
    _, _, expected, _ = trained(head(cache_features="off", **stage), policy)
    assert len(heard.phases) == 2
    assert heard.batches == [1, 2, 3] * 3
    rates = [[metrics["learning_rate"] for metrics in epochs] for epochs in (logged, expected)]
    assert rates[0] == pytest.approx(rates[1])
    assert all(np.array_equal(a, b) for a, b in zip(before, subject.backbone.get_weights(), strict=True))


def test_what_is_kept_is_said_in_one_line_and_the_run_of_the_backbone_is_shown():
    _, heard, _, _ = trained(head(epochs=2))
    # 29 + 17 images, 6 features and a label of 4 bytes each
    assert heard.phases == [
        "the backbone stands still: 46 rows of features, 0.0 MB, computed once and kept in memory"
    ]
    assert heard.notes == []
    assert heard.shares == sorted(heard.shares)
    assert heard.shares[-1] == 1.0
    assert heard.batches == [1, 2, 3] * 2


def test_features_on_disk_are_said_with_their_folder_and_used_again(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path))
    subject = trainee()
    _, heard, _, _ = trained(head(cache_features="disk"), subject=subject)
    assert heard.phases[0].endswith(f"computed once and kept in {tmp_path}")
    assert len(list(tmp_path.iterdir())) == 2
    _, again, _, _ = trained(head(cache_features="disk"), subject=subject)
    assert again.shares == []


def test_under_random_augmentation_every_epoch_runs_the_backbone_and_says_why():
    one = trained(head(), data=source(**FLIPPED))
    assert one[1].notes == [
        f"{TITLE}: every epoch runs the backbone: data.augment draws every image anew; "
        "cached_views: N keeps N draws of each"
    ]
    assert_same(one, trained(head(cache_features="off"), data=source(**FLIPPED)))


def test_asked_for_views_are_kept_under_random_augmentation():
    _, heard, logged, _ = trained(head(cached_views=3), data=source(**FLIPPED))
    assert heard.notes == []
    assert "104 rows" in heard.phases[0]
    assert logged[-1]["train/loss"] < logged[0]["train/loss"]


def test_a_backbone_that_draws_is_run_in_every_epoch():
    _, heard, logged, _ = trained(head(), subject=trainee(unseeded_backbone))
    (note,) = heard.notes
    assert note.startswith(f"{TITLE}: every epoch runs the backbone: ")
    assert len(logged) == 3


@pytest.mark.parametrize("train", ["everything", {"from": "conv_2"}])
def test_a_stage_that_trains_the_backbone_keeps_no_features(train):
    _, heard, _, _ = trained(Stage(train=train, epochs=1, learning_rate=0.01))
    assert (heard.phases, heard.notes, heard.shares) == ([], [], [])


def test_a_divergence_puts_the_last_good_weights_into_the_whole_model():
    subject = trainee()
    before = subject.model.get_weights()
    with pytest.raises(DivergedError):
        trained(head(learning_rate=1e12, warmup=0.0), subject=subject)
    assert all(np.array_equal(a, b) for a, b in zip(before, subject.model.get_weights(), strict=True))


def test_the_whole_model_is_what_is_saved_afterwards(tmp_path):
    subject = trainee(nested_backbone)
    layers = [layer.name for layer in subject.model.layers]
    trained(head(), subject=subject)
    subject.model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [layer.name for layer in loaded.layers] == layers
    pixels = next(iter(material(source()).validation))[0]
    np.testing.assert_array_equal(loaded.predict(pixels, verbose=0), subject.model.predict(pixels, verbose=0))


def test_whole_model_trains_on_after_a_stage_on_features():
    subject, _, _, first = trained(head())
    _, _, logged, _ = trained(Stage(train="everything", epochs=1, learning_rate=1e-9), subject=subject)
    assert logged[0]["validation/loss"] == pytest.approx(first.validation_loss, rel=1e-4)


@pytest.mark.parametrize(
    "keys",
    [
        {"train": "everything", "cached_views": 2},
        {"train": "everything", "cache_features": "disk"},
        {"train": "head", "cache_features": "off", "cached_views": 2},
    ],
    ids=str,
)
def test_a_key_of_the_cache_that_nothing_would_use_is_refused(keys):
    with pytest.raises(ValidationError, match=r"features are kept only under train: head.*leave it out"):
        Stage(epochs=1, learning_rate=0.1, **keys)
