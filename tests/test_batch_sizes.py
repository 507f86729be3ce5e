"""Stages with a batch size of their own: how many steps they have, and what their statistics are afterwards."""

import math

import numpy as np
import pytest

from finetune.batch_sizes import Leg, legs, sizes_in_words, steps_of
from finetune.batchnorm.horizon import Stretch
from finetune.batchnorm.sites import find_sites
from finetune.cli.recipes import in_brief
from finetune.datasets.batches import training_batches
from finetune.describe import stage_in_words
from finetune.errors import RecipeError
from finetune.heads import Linear
from finetune.outlook import followed_stretches, outlook
from finetune.policies import Freeze, Retrain
from finetune.recipe_file import load_text
from finetune.stage import Stage
from finetune.train import fit_frozen_epochs, fit_stage, following_epochs
from finetune.trained_part import Trainee
from tests.feature_cache.samples import source, trainee
from tests.nets import images, nested_net
from tests.recipe_file import GOOD
from tests.test_head_cache import TITLE, Heard, assert_same, material, trained

IMAGES = 29  # of tests.feature_cache.samples, in batches of 8


def stage(batch_size, **keys):
    given = {"train": "everything", "epochs": 4, "learning_rate": 0.05, **keys}
    return Stage(batch_size=batch_size, **given)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        (None, [Leg(range(4), 8, 3)]),
        (5, [Leg(range(4), 5, 5)]),
        ([4, 10], [Leg(range(1), 4, 7), Leg(range(1, 4), 10, 2)]),
        ([4, 4, 8, 4], [Leg(range(2), 4, 7), Leg(range(2, 3), 8, 3), Leg(range(3, 4), 4, 7)]),
        ([100], [Leg(range(4), 29, 1)]),
    ],
)
def test_every_epoch_has_its_entry_and_the_last_one_stays(sizes, expected):
    found = legs(stage(sizes and (tuple(sizes) if isinstance(sizes, list) else sizes)), 8, IMAGES)
    assert list(found) == expected
    assert steps_of(found) == sum(len(leg.epochs) * (IMAGES // leg.batch_size) for leg in expected)


def test_legs_of_a_part_are_those_of_its_epochs():
    assert legs(stage((4, 10)), 8, IMAGES, range(2, 4)) == (Leg(range(2, 4), 10, 2),)


def steps_and_rates(**keys):
    _, heard, logged, _ = trained(stage(**keys))
    return heard.batches, [metrics["learning_rate"] for metrics in logged]


def test_an_epoch_has_as_many_steps_as_whole_batches():
    batches, _ = steps_and_rates(batch_size=(4, 8, 16))
    assert batches == [*range(1, 8), *range(1, 4), 1, 1]


def test_the_schedule_counts_the_steps_of_every_epoch():
    """A cosine over 7 + 3 + 1 + 1 steps, read after each epoch."""
    _, rates = steps_and_rates(batch_size=(4, 8, 16), schedule="cosine", warmup=0.0)
    expected = [0.05 * (1 + math.cos(math.pi * done / 12)) / 2 for done in (7, 10, 11, 12)]
    assert rates == pytest.approx(expected, abs=1e-7)


def replayed(subject, sizes):
    """NumPy float64: the first site's running mean after every epoch, by Keras' rule and the policy's momentum."""
    data = source()
    conv = subject.backbone.get_layer("conv_1")
    mean, seen = np.array(subject.sites[0].statistics.mean, np.float64), []
    for epoch, size in enumerate(sizes):
        dataset = data.dataset.model_copy(update={"batch_size": size})
        batches = training_batches(data.splits.train, dataset, data.seed + epoch)
        momentum = max(1 - 10 / (IMAGES // size), 0.9)
        for pixels, _ in batches:
            values = np.asarray(conv(np.asarray(pixels, np.float32) / 127.5 - 1.0), np.float64)
            mean = momentum * mean + (1 - momentum) * values.mean((0, 1, 2))
        seen.append(mean)
    return seen


def test_the_running_statistics_are_those_of_batches_of_these_sizes():
    subject, seen = trainee(), []
    expected = replayed(trainee(), (4, 10, 6))
    still = stage((4, 10, 6), epochs=3, learning_rate=1e-30, warmup=0.0, schedule="constant")
    first = subject.sites[0]
    fit_stage(
        subject,
        Retrain(),
        still,
        TITLE,
        material(source()),
        Heard(),
        lambda epoch, metrics: seen.append(first.statistics.mean.astype(np.float64)),
    )
    np.testing.assert_allclose(seen, expected, atol=1e-5)
    assert np.abs(np.diff(expected, axis=0)).max() > 1e-3, "the test needs statistics that move"


def test_a_stage_of_the_size_of_the_data_is_the_stage_without_one():
    one, other = trained(stage(8), Retrain()), trained(stage(None), Retrain())
    assert_same(one, other)
    pairs = zip(one[0].model.get_weights(), other[0].model.get_weights(), strict=True)
    assert all(a.tobytes() == b.tobytes() for a, b in pairs)


def head(**keys):
    return stage((4, 8, 16), train="head", learning_rate=0.3, **keys)


@pytest.mark.parametrize("keys", [{}, {"ema": 0.6}], ids=str)
def test_a_head_on_features_ends_as_one_that_runs_the_backbone(keys):
    one, other = trained(head(**keys)), trained(head(cache_features="off", **keys))
    assert_same(one, other)
    assert one[1].shares != []
    assert one[1].batches == other[1].batches


def test_features_are_kept_for_batches_of_any_size(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path))
    subject = trainee()
    trained(head(cache_features="disk"), subject=subject)
    assert len(list(tmp_path.iterdir())) == 2
    again = Stage(train="head", epochs=2, batch_size=5, learning_rate=0.1, cache_features="disk")
    assert trained(again, subject=subject)[1].shares == []


def test_no_epoch_has_the_order_of_another():
    orders = [
        np.concatenate(list(source().rebatched(size, epoch).training_order().as_numpy_iterator()))[:24]
        for epoch, size in enumerate((4, 8, 12))
    ]
    assert len({tuple(order) for order in orders}) == 3


def weights_of_every_epoch(**keys):
    subject, seen = trainee(), []
    fit_stage(
        subject,
        Retrain(),
        stage((4, 8, 16), **keys),
        TITLE,
        material(source()),
        Heard(),
        lambda epoch, metrics: seen.append(np.array(subject.backbone.get_layer("conv_1").kernel)),
    )
    return seen


def test_an_average_of_the_weights_does_not_train_on_where_the_size_changes():
    for plain, averaged in zip(weights_of_every_epoch(), weights_of_every_epoch(ema=0.9), strict=True):
        np.testing.assert_allclose(plain, averaged, rtol=1e-5, atol=1e-6)


def test_early_stopping_ends_the_stage_and_not_only_the_batches_of_one_size():
    sizes = (8, *[16] * 4, *[4] * 15)
    hot = stage(sizes, train="head", epochs=20, learning_rate=8.0, warmup=0.0, early_stopping=1)
    _, _, logged, outcome = trained(hot, Freeze())
    losses = [metrics["validation/loss"] for metrics in logged]
    assert len(losses) < 20, "the test needs a rate at which the stage stops early"
    assert len(losses) - 1 - int(np.argmin(losses)) == 1
    assert outcome.validation_loss == min(losses)


def test_frozen_epochs_have_the_sizes_at_the_end_of_the_list_and_go_on_with_the_schedule():
    policy, heard, rates = Retrain(freeze_last_epochs=2), Heard(), []
    sizes = stage((4, 8, 16), schedule="cosine", warmup=0.0)
    rest = (sizes, TITLE, material(source()), heard, lambda epoch, m: rates.append(m["learning_rate"]))
    subject = trainee()
    fit_stage(subject, policy, *rest, epochs=following_epochs(policy, [sizes], 0))
    fit_frozen_epochs(subject, policy, *rest)
    assert heard.batches == [*range(1, 8), *range(1, 4), 1, 1]
    expected = [0.05 * (1 + math.cos(math.pi * done / 12)) / 2 for done in (7, 10, 11, 12)]
    assert rates == pytest.approx(expected, abs=1e-7)


def test_the_horizon_counts_the_steps_of_every_epoch():
    followed = followed_stretches(trainee(), Retrain(), [stage((1, 10)), stage(None, epochs=2)], 8, 290)
    # 290 steps of one image: 1 - 10 / 290; then three epochs of 29 steps; then two of 36
    assert followed["backbone/bn_1"] == [
        Stretch(pytest.approx(1 - 10 / 290), 290), Stretch(0.9, 3 * 29), Stretch(0.9, 2 * 36),
    ]  # fmt: skip


def test_batches_that_leave_too_few_positions_are_told_with_the_stage_that_has_them():
    model = nested_net()
    subject = Trainee(model, model.get_layer("net"), find_sites(model, images(1)))
    sizes = [stage(None), stage((32, 1, 8)), stage(16)]
    (problem,) = outlook(subject, Retrain(), sizes, 10, 16).problems
    assert problem.startswith(
        "stages[1].batch_size: batches of 1 leave a single position behind each channel of "
    )
    (warning,) = outlook(subject, Retrain(), [sizes[0], stage((32, 8))], 10, 16, images=160).warnings
    assert "use batches of at least 16 images (stages[1].batch_size)" in warning


def problems(text):
    with pytest.raises(RecipeError) as caught:
        load_text(GOOD + f"    batch_size: {text}\n", "x.yaml")
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0", "stages[0].batch_size: expected a number of at least 1, got 0"),
        ("many", "stages[0].batch_size: expected a whole number, got 'many'"),
        ("2.5", "stages[0].batch_size: expected a whole number, got 2.5"),
        ("[]", "stages[0].batch_size: expected a list of 1 or more, got an empty list"),
        ("[8, 0]", "stages[0].batch_size[1]: expected a number of at least 1, got 0"),
        (
            "[8, 16, 32]",
            "stages[0].batch_size: expected at most one entry an epoch, got 3 for 2; "
            "leave out those that no epoch has",
        ),
    ],
)
def test_a_wrong_size_is_refused_in_one_line(text, said):
    assert problems(text) == [f"x.yaml:14 {said}"]


def test_sizes_are_read_from_a_recipe_and_said_in_words():
    (listed,) = load_text(GOOD + "    batch_size: [8, 16]\n").stages
    (single,) = load_text(GOOD + "    batch_size: 8\n").stages
    assert (listed.batch_size, single.batch_size) == ((8, 16), 8)
    assert [sizes_in_words(each) for each in (listed, single)] == ["batches of 8, 16", "batches of 8"]
    assert sizes_in_words(stage(None)) == ""


def test_check_shows_them():
    text = GOOD + "    batch_size: [8, 16]\n"
    said = "bundled resnet50_quarter, retrain, tfds fashion_shift, stage 1 in batches of 8, 16"
    assert in_brief(load_text(text)) == said


def test_the_title_of_a_stage_shows_them():
    title = "stage 1 of 1: train everything, 4 epochs, sgd at 0.05, batches of 4, 8"
    assert stage_in_words(0, [stage((4, 8))]) == title


@pytest.mark.parametrize(("policy", "equal"), [(Freeze(), True), (Retrain(), False)])
def test_accumulated_gradients_are_those_of_the_whole_batch_only_where_no_site_follows(policy, equal):
    """Two batches of 4 make the step of one batch of 8: the law that every guide promises, and where BN breaks it."""
    keys = {"epochs": 1, "optimizer": "sgd", "momentum": 0.0, "warmup": 0.0, "schedule": "constant"}
    # no dropout: it would draw once for each batch
    two, one = (
        trained(several, policy, trainee(head=Linear()))[0].model
        for several in (stage(4, accumulate=2, **keys), stage(8, **keys))
    )
    apart = max(
        float(np.abs(np.asarray(a) - np.asarray(b)).max())
        for a, b in zip(two.trainable_variables, one.trainable_variables, strict=True)
    )
    assert apart < 1e-5 if equal else apart > 1e-4


@pytest.mark.parametrize("policy", [Freeze(), Retrain()])
def test_accumulation_is_no_larger_batch_for_a_site_and_that_is_said(policy):
    model = nested_net()
    subject = Trainee(model, model.get_layer("net"), find_sites(model, images(1)))
    said = outlook(subject, policy, [stage(8, accumulate=4)], 3, 8, images=24).warnings
    expected = "those of one batch of 8 images, not of 32; where that is too few, freeze the sites"
    assert any(words.endswith(expected) for words in said) is (policy.policy == "retrain")


def test_frozen_epochs_go_on_where_the_schedule_is_under_accumulation():
    policy = Retrain(freeze_last_epochs=1)
    keys = {"epochs": 4, "accumulate": 2, "schedule": "cosine", "warmup": 0.0}
    _, _, logged, _ = trained(stage(4, **keys), policy)
    expected = [0.05 * (1 + math.cos(math.pi * batches / 28)) / 2 for batches in (7, 14, 21, 28)]
    assert [metrics["learning_rate"] for metrics in logged] == pytest.approx(expected, abs=1e-7)


def test_an_average_after_every_batch_is_refused_under_accumulation():
    text = GOOD + "    ema: 0.9\n    accumulate: 2\n"
    with pytest.raises(
        RecipeError, match="ema averages after every batch, which is no step under accumulate"
    ):
        load_text(text)
