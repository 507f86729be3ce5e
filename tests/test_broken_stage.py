"""A stage that is broken off in its steps, again and again, ends bit by bit as the one that was not."""

import signal

import numpy as np
import pytest

from finetune import checkpoint
from finetune.checkpoint import Checkpoint, put_back, values_of, variables_of
from finetune.datasets.batches import evaluation_batches
from finetune.errors import DivergedError
from finetune.heads import Linear
from finetune.keeping import Keeping, StandingKeeper
from finetune.orders import Orders
from finetune.pace import Pace
from finetune.policies import Affine, Freeze, Retrain
from finetune.progress import Progress
from finetune.result import EpochRecord
from finetune.stage import Stage
from finetune.train import Material, Resumed, fit_stage
from tests.feature_cache.samples import EVALUATION_BATCH, nested_backbone, source, trainee
from tests.nets import CLASSES, images

FLIPPED = {"augment": ({"layer": "RandomFlip", "options": {"mode": "horizontal_and_vertical"}},)}
MIXED = {"mix": {"kind": "mixup", "alpha": 0.4}}

# 29 images in batches of 8: three steps an epoch
CASES = {
    "the head alone, on two draws of every image that were kept": (
        Freeze(),
        {"train": "head", "cached_views": 2, "optimizer": "adam"},
        FLIPPED,
    ),
    "two batches a step, of two images in one": (
        Affine(),
        {"accumulate": 2, "schedule": "cosine", "label_smoothing": 0.1},
        MIXED,
    ),
    "batches that grow, and an average of the weights": (
        Retrain(),
        {"ema": 0.9, "batch_size": (4, 8, 8)},
        {},
    ),
    "a stage that stops by itself, on images drawn anew": (
        Retrain(),
        {"epochs": 9, "learning_rate": 3.0, "warmup": 0.0, "early_stopping": 1},
        FLIPPED,
    ),
}
ACCUMULATED, EARLY = (
    "two batches a step, of two images in one",
    "a stage that stops by itself, on images drawn anew",
)


class Asked(Progress):
    """Somebody who presses Ctrl-C in a step of a sitting, from 1; hears of every batch, and where the bar begins."""

    def __init__(self, step=None):
        self.step, self.steps, self.heard = step, 0, []

    def stage(self, title, epochs, steps, batch_size, done=0, step=0):
        self.begun = (done, step)

    def batch(self, step, loss, accuracy):
        self.heard.append((step, loss, accuracy))
        self.steps += 1
        if self.steps == self.step:
            signal.raise_signal(signal.SIGINT)


class Sittings:
    """One stage, begun anew in every sitting as another process would, and what its checkpoints hold in a folder."""

    def __init__(self, folder, case):
        self.folder, self.records = folder, []
        self.policy, keys, data = CASES[case]
        self.stage = Stage(
            **{"train": "everything", "epochs": 3, "learning_rate": 0.05, "schedule": "constant", **keys}
        )
        self.data = data

    def sit(self, progress):
        """The trained model, and the validation loss."""
        self.subject = trainee(nested_backbone, Linear(dropout=0.5, hidden=(7,)))
        data = source(**self.data)
        self.fed = Material(
            Orders(data.training_batches()),
            evaluation_batches(data.splits.validation, EVALUATION_BATCH),
            3,
            8,
            CLASSES,
            None,
            lambda limit=None: [images(24)[:limit]],
            data,
            "shares" if self.data is MIXED else "numbers",
        )
        found = checkpoint.latest(self.folder)
        self.records = list(found.epochs) if found else []
        outcome = fit_stage(
            self.subject,
            self.policy,
            self.stage,
            "stage 1 of 1",
            self.fed,
            progress,
            self.log,
            keeping=Keeping(self.keep, Pace(1e9)),
            resumed=Resumed(found.standing, lambda model: put_back(found, model), found.drawn)
            if found
            else None,
        )
        return self.subject.model.get_weights(), outcome.validation_loss

    def log(self, epoch, metrics):
        self.records.append(EpochRecord(1, epoch, epoch, metrics))

    def keep(self, standing):
        model = self.subject.model
        variables = (values_of(variables_of(model)), values_of(model.optimizer.variables))
        checkpoint.save(
            self.folder,
            Checkpoint(0, None, standing, self.fed.training.drawn, *variables, self.records, [], {}),
        )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Stages without a break, by case: weights and validation loss, records, batches as a person heard of them."""
    known = {}

    def of(case):
        if case not in known:
            sittings, heard = Sittings(tmp_path_factory.mktemp("whole"), case), Asked()
            known[case] = (*sittings.sit(heard), sittings.records, heard.heard)
        return known[case]

    return of


def assert_same(ended, records, expected):
    (weights, loss), (others, other, known, _) = ended, expected
    for a, b in zip(weights, others, strict=True):
        np.testing.assert_array_equal(a, b)
    assert loss == other
    assert records == known


@pytest.mark.parametrize("case", CASES)
def test_broken_off_again_and_again_it_ends_bit_by_bit_the_same(tmp_path, whole, case):
    """In the first epoch, in the second, and when all batches of the third were trained on."""
    expected, sittings, heard = whole(case), Sittings(tmp_path, case), []
    for step in (2, 3, 4, None):
        progress = Asked(step)
        try:
            ended = sittings.sit(progress)
        except KeyboardInterrupt:
            assert checkpoint.latest(tmp_path).standing.step == progress.heard[-1][0]
        heard += progress.heard
        if progress.steps != step:
            break
    assert_same(ended, sittings.records, expected)
    # every batch once
    assert heard == expected[3]
    if case == EARLY:
        assert len(sittings.records) < 9, "the test needs a rate at which the stage stops early"


def test_asked_in_a_validation_it_has_the_validation_left_only(tmp_path, whole, monkeypatch):
    sittings, begin = Sittings(tmp_path, ACCUMULATED), StandingKeeper.on_test_begin

    def asked(keeper, logs=None):
        begin(keeper, logs)
        if keeper.epoch == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(StandingKeeper, "on_test_begin", asked)
    with pytest.raises(KeyboardInterrupt):
        sittings.sit(Asked())
    monkeypatch.setattr(StandingKeeper, "on_test_begin", begin)
    standing = checkpoint.latest(tmp_path).standing
    assert (standing.epochs, standing.step) == (1, 3)
    progress = Asked()
    ended = sittings.sit(progress)
    assert progress.begun == (1, 3)
    assert [step for step, _, _ in progress.heard] == [1, 2, 3]
    assert_same(ended, sittings.records, whole(ACCUMULATED))


def test_a_divergence_after_a_break_names_the_step_of_the_epoch(tmp_path):
    sittings = Sittings(tmp_path, EARLY)
    with pytest.raises(KeyboardInterrupt):
        sittings.sit(Asked(2))
    found = checkpoint.latest(tmp_path)
    for array in found.model:
        if array.dtype == np.float32:
            array[...] = np.nan
    checkpoint.save(tmp_path, found)
    with pytest.raises(DivergedError, match=r"the loss became nan at step 3 of 3 in epoch 1;"):
        sittings.sit(Asked())
