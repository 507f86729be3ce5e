"""The gate refuses what does harm and lets through what repairs; on predictions whose shares are known."""

from dataclasses import replace

import numpy as np
import pytest

from finetune.batchnorm.moments import RunningStatistics
from finetune.errors import DataError, ModelError
from finetune.recalibration.gate import Evidence, Labelled, judge
from finetune.result import Check

CLASSES = 10


def statistics(channels=4, variance=1.0, dtype=np.float32):
    return RunningStatistics(np.zeros(channels, dtype), np.full(channels, variance, dtype))


def predictions(classes, sure=0.9):
    """Probabilities that put `sure` on the classes given."""
    found = np.full((len(classes), CLASSES), (1 - sure) / (CLASSES - 1))
    found[np.arange(len(classes)), classes] = sure
    return found


def wrong(labels, share, seed=0):
    """The labels, with a share of them replaced by the next class."""
    random = np.random.default_rng(seed)
    return np.where(random.random(len(labels)) < share, (labels + 1) % CLASSES, labels)


def evidence(before, after, **changed):
    given = {
        "images": len(before),
        "positions": {"early": 196, "late": 4},
        "statistics": {"early": statistics(), "late": statistics()},
        "residual": 1e-6,
        "before": predictions(before),
        "after": predictions(after),
    }
    return Evidence(**(given | changed))


def failed(verdict):
    return [check.name for check in verdict.checks if not check.passed]


FAIR = np.arange(400) % CLASSES
COLLAPSED = np.where(np.arange(400) % 5 == 0, FAIR, 3)


def test_a_collapsed_network_that_sees_all_classes_again_passes():
    verdict = judge(evidence(COLLAPSED, wrong(FAIR, 0.2)))
    assert verdict.passed
    assert verdict.reason == ""


def test_an_unchanged_camera_passes():
    assert judge(evidence(FAIR, FAIR)).passed


def test_one_image_is_refused():
    verdict = judge(evidence(FAIR[:1], FAIR[:1]))
    assert failed(verdict) == ["enough images", "effective positions"]
    assert "1; at least 32 expected" in verdict.reason
    assert "late: 4" in verdict.reason
    assert "\n" not in verdict.reason


def test_a_prior_makes_up_for_few_images():
    assert judge(evidence(FAIR[:8], FAIR[:8], prior=256.0)).passed
    assert failed(judge(evidence(FAIR[:8], FAIR[:8], prior=2.0))) == ["enough images", "effective positions"]


def test_a_site_with_one_position_an_image_wants_more_images():
    verdict = judge(evidence(FAIR[:40], FAIR[:40], positions={"early": 196, "dense": 1}))
    assert failed(verdict) == ["effective positions"]
    assert "dense: 40" in verdict.reason
    assert "give at least 64 images" in verdict.reason


@pytest.mark.parametrize("before", [FAIR % 2, np.full(400, 3)], ids=["clean", "shifted"])
def test_two_classes_of_ten_are_refused_without_labels_whatever_was_seen_before(before):
    verdict = judge(evidence(before, wrong(FAIR % 2, 0.3)))
    assert failed(verdict) == ["class balance"]
    assert "give images of all classes" in verdict.reason


def test_labels_of_the_sample_go_before_what_is_predicted():
    assert failed(judge(evidence(FAIR, FAIR, labels=FAIR % 2))) == ["class balance"]
    assert judge(evidence(FAIR % 2, FAIR % 2, labels=FAIR)).passed


def test_a_mix_that_is_expected_passes():
    rare = np.where(np.arange(400) % 10 == 0, 1, 0)
    expected = np.eye(CLASSES)[0] * 0.9 + np.eye(CLASSES)[1] * 0.1
    assert failed(judge(evidence(rare, rare))) == ["class balance"]
    assert judge(evidence(rare, rare, expected=expected)).passed


def test_a_mix_of_other_classes_than_the_model_has_is_bad_input():
    with pytest.raises(DataError, match="class shares: found 3, the model has 10 classes"):
        judge(evidence(FAIR, FAIR, expected=np.full(3, 1 / 3)))


def test_few_fair_images_are_not_taken_for_skewed():
    for seed in range(50):
        drawn = np.random.default_rng(seed).integers(0, CLASSES, 32)
        assert judge(evidence(drawn, drawn)).passed


def test_a_model_without_classes_is_judged_by_the_rest():
    maps = np.zeros((64, 8, 8, 2))
    verdict = judge(replace(evidence(FAIR[:64], FAIR[:64]), before=maps, after=maps))
    assert verdict.passed
    assert "class balance" not in [check.name for check in verdict.checks]


@pytest.mark.parametrize(
    "broken",
    [
        statistics(variance=np.nan),
        statistics(variance=-1e-9),
        RunningStatistics(np.array([np.inf]), np.array([1.0])),
    ],
)
def test_statistics_that_nothing_can_be_divided_by_are_refused(broken):
    verdict = judge(evidence(FAIR, FAIR, statistics={"good": statistics(), "bad": broken}))
    assert failed(verdict) == ["finite and positive variances"]
    assert "1 of 2 sites: bad" in verdict.reason


def test_a_dead_channel_is_counted_and_a_dead_network_refused():
    some_dead = RunningStatistics(np.zeros(3), np.array([0.0, 1.0, 1.0]))
    verdict = judge(evidence(FAIR, FAIR, statistics={"a": some_dead}))
    assert verdict.passed
    assert any("1 of them without spread" in check.detail for check in verdict.checks)
    assert not judge(evidence(FAIR, FAIR, statistics={"a": statistics(variance=0.0)})).passed


def test_what_was_not_measured_once_more_is_not_said_to_be():
    assert "residual" not in [check.name for check in judge(evidence(FAIR, FAIR, residual=None)).checks]


@pytest.mark.parametrize(
    ("residual", "dtype", "passes"),
    [
        (1e-5, np.float32, True),
        (1e-2, np.float32, False),
        (9e-3, np.float16, True),
        (np.inf, np.float16, False),
        (np.nan, np.float32, False),
    ],
)
def test_the_residual_is_at_the_rounding_of_what_is_stored(residual, dtype, passes):
    verdict = judge(evidence(FAIR, FAIR, residual=residual, statistics={"a": statistics(dtype=dtype)}))
    assert verdict.passed == passes


def test_what_the_format_found_counts_too():
    loaders = (Check("both loaders agree", False, "they are 0.3 apart"),)
    assert judge(evidence(FAIR, FAIR, loaders=loaders)).reason == "both loaders agree: they are 0.3 apart"


def labelled(before, after, labels):
    return Labelled(predictions(before), predictions(after), labels)


def test_inverted_images_are_refused_by_their_labels():
    random = np.random.default_rng(0)
    before, after = (
        np.where(random.random(400) < 0.2, FAIR, random.integers(0, CLASSES, 400)) for _ in range(2)
    )
    verdict = judge(evidence(before, after, labelled=labelled(before, after, FAIR)), tolerance=0.1)
    assert failed(verdict) == ["a change that BN can repair"]
    assert "train anew" in verdict.reason


def test_some_gain_for_many_changes_is_no_repair():
    """As inverted images showed to a model that was tuned on fog: half of the predictions changed."""
    before, after = wrong(FAIR, 0.6, seed=1), (wrong(FAIR, 0.45, seed=2) - FAIR) * 2 % CLASSES + FAIR
    after %= CLASSES
    seen = evidence(before, after, labelled=labelled(before, after, FAIR))
    verdict = judge(seen)
    assert verdict.scores["accuracy"].low > 0
    assert failed(verdict) == ["a change that BN can repair"]


def test_a_gain_on_a_handful_of_labels_may_be_chance():
    labels = FAIR[:6]
    before, after = (np.where(np.arange(6) < hits, labels, (labels + 1) % CLASSES) for hits in (2, 4))
    verdict = judge(evidence(FAIR, FAIR, labelled=labelled(before, after, labels)))
    assert verdict.scores["accuracy"].value / (1 / 3) == pytest.approx(1)
    assert failed(verdict) == ["a change that BN can repair"]


def test_fog_passes_with_labels():
    after = wrong(FAIR, 0.25)
    verdict = judge(evidence(COLLAPSED, after, labelled=labelled(COLLAPSED, after, FAIR)))
    assert verdict.passed
    assert verdict.scores["accuracy"].low > 0.3
    assert set(verdict.scores) == {"accuracy", "balanced_accuracy", "expected_calibration_error"}


def test_a_fall_beyond_the_tolerance_is_refused_with_its_interval():
    after = wrong(FAIR, 0.05)
    fallen = float(np.mean(after != FAIR))
    seen = evidence(FAIR, after, labelled=labelled(FAIR, after, FAIR))
    verdict = judge(seen)
    assert failed(verdict) == ["labelled accuracy"]
    assert "95 % interval" in verdict.reason
    assert judge(seen, tolerance=fallen).passed
    assert not judge(seen, tolerance=fallen - 1 / 400).passed


def test_labels_that_the_model_does_not_know_are_said():
    seen = Labelled(np.eye(3), np.eye(3), np.array([0, 1, 3]))
    with pytest.raises(DataError, match="found class 3, the model has 3 classes"):
        judge(evidence(FAIR, FAIR, labelled=seen))
    maps = np.zeros((3, 4, 4, 2))
    with pytest.raises(ModelError, match="expected scores of classes"):
        judge(evidence(FAIR, FAIR, labelled=Labelled(maps, maps, np.zeros(3, int))))
