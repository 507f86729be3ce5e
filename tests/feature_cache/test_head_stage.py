"""A head trained on cached features is the head that would have been trained without them."""

import os
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest

from finetune.callbacks import BestWeights, EpochLog
from finetune.datasets.batches import evaluation_batches, training_batches
from finetune.errors import DataError
from finetune.feature_cache import NotCacheable, Space, cached_head_stage, head_stage
from finetune.feature_cache.cut import cut_in_two
from finetune.progress import Progress
from finetune.stage import Stage
from finetune.train import compile_stage
from tests.feature_cache.samples import (
    BACKBONES,
    EVALUATION_BATCH,
    nested_backbone,
    source,
    trainee,
    unseeded_backbone,
)

STAGE = Stage(train="head", epochs=3, learning_rate=0.3, schedule="constant")
FLIPPED = {"augment": ({"layer": "RandomFlip", "options": {"mode": "horizontal_and_vertical"}},)}


def fit(model, training, validation, stage=STAGE, class_weight=None):
    """Train one stage as the trainer does; the metrics of every epoch."""
    logged, best = [], BestWeights(stage.early_stopping)
    compile_stage(model, stage, 3 * stage.epochs)
    model.fit(
        training,
        validation_data=validation,
        epochs=stage.epochs,
        class_weight=class_weight,
        callbacks=[EpochLog(Progress(), lambda epoch, metrics: logged.append(metrics)), best],
        verbose=0,
        shuffle=False,
    )
    best.put_best_back()
    return logged


def uncached(subject, images, **options):
    training = training_batches(images.splits.train, images.dataset, images.seed)
    validation = evaluation_batches(images.splits.validation, EVALUATION_BATCH)
    return fit(subject.model, training, validation, **options)


def cached(subject, images, keep="memory", space=None, views=None, **options):
    stage = cached_head_stage(subject.model, subject.backbone, images, keep, views, space)
    return fit(stage.head, stage.training, stage.validation, **options)


def assert_same_training(one, other):
    (first, logged), (second, expected) = one, other
    for a, b in zip(first.model.get_weights(), second.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert len(logged) == len(expected)
    for metrics, reference in zip(logged, expected, strict=True):
        assert metrics == pytest.approx(reference, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("backbone", "keep", "class_weight"),
    [("flat", "memory", None), ("flat", "disk", {0: 3.0, 1: 0.5, 2: 1.0}), ("nested", "memory", None)],
)
def test_cached_training_equals_uncached_training(backbone, class_weight, keep, tmp_path):
    one, other = trainee(BACKBONES[backbone]), trainee(BACKBONES[backbone])
    start = one.model.get_weights()
    logged = cached(one, source(), keep, Space(folder=tmp_path), class_weight=class_weight)
    expected = uncached(other, source(), class_weight=class_weight)
    assert_same_training((one, logged), (other, expected))
    moved = [np.abs(a - b).max() for a, b in zip(start, one.model.get_weights(), strict=True)]
    assert max(moved) > 0.05, "the test needs a stage that trains something"


def test_the_backbone_is_traced_once_for_all_splits(monkeypatch):
    traced, original = [], head_stage.compiled
    monkeypatch.setattr(
        head_stage, "compiled", lambda features: traced.append(features) or original(features)
    )
    cached(trainee(nested_backbone), source())
    assert len(traced) == 1


def test_the_backbone_stays_bit_identical():
    subject = trainee(nested_backbone)
    before = subject.backbone.get_weights()
    cached(subject, source())
    assert all(
        a.tobytes() == b.tobytes() for a, b in zip(before, subject.backbone.get_weights(), strict=True)
    )


def test_the_best_epoch_is_left_in_the_joined_model():
    subject = trainee()
    stage = Stage(train="head", epochs=6, learning_rate=8.0, schedule="constant", warmup=0.0)
    losses = [metrics["validation/loss"] for metrics in cached(subject, source(), stage=stage)]
    assert losses[-1] > min(losses) + 0.01, "the test needs a rate at which the last epoch is not the best"
    compile_stage(subject.model, stage, 3 * stage.epochs)
    batches = evaluation_batches(source().splits.validation, EVALUATION_BATCH)
    assert subject.model.evaluate(batches, verbose=0, return_dict=True)["loss"] == pytest.approx(min(losses))


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_features_of_half_precision_are_kept_exactly(precision):
    keras.mixed_precision.set_dtype_policy(precision)
    try:
        subject, images = trainee(), source()
        stage = cached_head_stage(subject.model, subject.backbone, images, "memory")
        pixels = next(iter(evaluation_batches(images.splits.validation, EVALUATION_BATCH)))[0]
        features = next(iter(stage.validation))[0]
        assert features.dtype == "float32"
        assert stage.head.input.dtype == precision.removeprefix("mixed_")
        np.testing.assert_array_equal(stage.head(features), subject.model(keras.ops.cast(pixels, "float32")))
    finally:
        keras.mixed_precision.set_dtype_policy("float32")


def test_random_augmentation_is_not_cached_unless_views_are_asked_for():
    subject = trainee()
    with pytest.raises(NotCacheable, match=r"^data\.augment draws every image anew; cached_views: N keeps N"):
        cached_head_stage(subject.model, subject.backbone, source(**FLIPPED))


@pytest.mark.parametrize("keep", ["memory", "disk"])
def test_a_backbone_that_turns_out_to_be_random_is_not_cached(keep, tmp_path):
    subject = trainee(unseeded_backbone)
    with pytest.raises(NotCacheable, match=r"other features in training mode"):
        cached_head_stage(subject.model, subject.backbone, source(), keep, space=Space(folder=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_split_that_gives_fewer_images_than_it_says_is_an_error_of_the_data():
    subject, images = trainee(), source()
    train = replace(images.splits.train, count=30)
    short = replace(images, splits=replace(images.splits, train=train))
    with pytest.raises(DataError, match=r"^a split of 30 images gave 29 while its features were computed$"):
        cached_head_stage(subject.model, subject.backbone, short, "memory")


def test_every_epoch_sees_one_of_the_views_of_each_image_and_all_views_are_seen():
    subject, images = trainee(), source(**FLIPPED)
    stage = cached_head_stage(subject.model, subject.backbone, images, "memory", views=3)
    drawn = images.training(views=3)
    draws = [np.concatenate([x for x, _ in drawn.batches.as_numpy_iterator()]) for _ in range(3)]
    features = cut_in_two(subject.model, subject.backbone).features
    views = np.stack([np.asarray(features(draw)) for draw in draws])
    order, seen = images.training_order(), set()
    for _ in range(4):
        places = np.concatenate(list(order.as_numpy_iterator()))
        found = np.concatenate([x for x, _ in stage.training.as_numpy_iterator()])
        distances = np.abs(views[:, places] - found).max(-1)
        assert distances.min(0).max() < 1e-5
        seen |= set(distances.argmin(0))
    assert seen == {0, 1, 2}


def test_the_budget_decides_between_memory_and_disk(tmp_path):
    subject = trainee()
    needed = (29 + 17) * (6 * 4 + 4)
    for memory, files in ((needed, 0), (needed - 1, 2)):
        space = Space(memory=memory, folder=tmp_path)
        cached_head_stage(subject.model, subject.backbone, source(), "auto", space=space)
        assert len(list(tmp_path.iterdir())) == files


def test_views_count_in_the_budget(tmp_path):
    subject = trainee()
    space = Space(memory=(29 + 17) * 28, folder=tmp_path)
    cached_head_stage(subject.model, subject.backbone, source(**FLIPPED), "auto", views=2, space=space)
    assert len(list(tmp_path.iterdir())) == 2


def test_where_the_disk_has_no_room_the_stage_runs_uncached(tmp_path):
    subject = trainee()
    with pytest.raises(NotCacheable, match=r"the features take 812 bytes, 800 are allowed$"):
        cached_head_stage(
            subject.model, subject.backbone, source(), "disk", space=Space(disk=800, folder=tmp_path)
        )


def test_a_folder_that_cannot_be_written_is_no_reason_to_fail(tmp_path):
    subject = trainee()
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(NotCacheable, match=r"file/features: "):
        cached_head_stage(
            subject.model, subject.backbone, source(), "disk", space=Space(folder=blocked / "features")
        )


ANOTHER_PROCESS = """
from pathlib import Path
from finetune.feature_cache import Space, cached_head_stage
from tests.feature_cache.samples import nested_backbone, source, trainee
subject = trainee(nested_backbone)
cached_head_stage(subject.model, subject.backbone, source(), "disk", space=Space(folder=Path({folder!r})))
"""


def test_another_process_uses_what_lies_on_disk_and_rebuilds_what_is_torn(tmp_path, monkeypatch):
    code = ANOTHER_PROCESS.format(folder=str(tmp_path))
    subprocess.run([sys.executable, "-c", code], check=True, cwd=os.getcwd(), timeout=300)
    written = set(tmp_path.iterdir())
    assert len(written) == 2
    computed, original = [], head_stage.compute_rows

    def watched(features, forward, batches, count, passes):
        computed.append(count)
        return original(features, forward, batches, count, passes)

    monkeypatch.setattr(head_stage, "compute_rows", watched)
    keras.backend.clear_session()
    subject = trainee(nested_backbone)
    space = Space(folder=tmp_path)
    cached_head_stage(subject.model, subject.backbone, source(), "disk", space=space)
    assert computed == []
    torn = min(written, key=lambda path: path.stat().st_size)
    os.truncate(torn, 100)
    cached_head_stage(subject.model, subject.backbone, source(), "disk", space=space)
    assert computed == [17]
    assert set(tmp_path.iterdir()) == written
