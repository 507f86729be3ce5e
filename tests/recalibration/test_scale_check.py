"""A wrong scale is told from another camera, and the right one is named."""

import numpy as np
import pytest

from finetune.batchnorm.moments import RunningStatistics
from finetune.recalibration.preprocessing import WORDS, Preprocessing
from finetune.recalibration.scale_check import distance, implausible, spread_ratio

RANDOM = np.random.default_rng(0)
IMAGES, OTHERS = RANDOM.integers(0, 256, (2, 8, 16, 16, 3), np.uint8)
FILTERS = RANDOM.normal(size=(3, 12))
EPSILON = 1e-5


def at_first(images, scale):
    """The moments behind a first layer of twelve 1 x 1 filters."""
    values = (Preprocessing(image_size=16, scale=scale, order="rgb").apply(images) @ FILTERS).reshape(-1, 12)
    return RunningStatistics(values.mean(axis=0), values.var(axis=0))


def seen(images):
    return {scale: at_first(images, scale) for scale in WORDS}


@pytest.mark.parametrize("right", WORDS)
def test_the_right_scale_is_no_reason_for_a_warning(right):
    assert implausible(at_first(IMAGES, right), seen(IMAGES), right, EPSILON) is None


@pytest.mark.parametrize("right", WORDS)
def test_a_camera_of_less_contrast_is_none_either(right):
    dull = (OTHERS * 0.4 + 100).astype(np.uint8)
    assert implausible(at_first(IMAGES, right), seen(dull), right, EPSILON) is None


@pytest.mark.parametrize(
    ("right", "used"), [(r, u) for r in WORDS for u in WORDS if r != u and {r, u} != {"none", "caffe"}]
)
def test_a_wrong_scale_is_said_with_the_one_that_fits(right, used):
    words = implausible(at_first(IMAGES, right), seen(OTHERS), used, EPSILON)
    assert words is not None
    assert words.startswith(f"scale {used} is implausible")
    assert words.endswith(f"say --scale {right}")


def test_255_times_is_said_also_where_no_other_scale_was_tried():
    words = implausible(at_first(IMAGES, "unit"), {"none": at_first(IMAGES, "none")}, "none", EPSILON)
    assert words is not None
    assert "254" in words or "255" in words
    assert "no other scale fits" in words


def test_the_distance_is_that_of_the_middle_channel_and_the_same_both_ways():
    one = RunningStatistics(np.array([0.0, 0.0, 9e9]), np.array([1.0, 1.0, 1.0]))
    other = RunningStatistics(np.array([0.0, 1.0, 0.0]), np.array([1.0, 1.0, 1.0]))
    assert distance(one, other, 0.0) == distance(other, one, 0.0) == pytest.approx(1.0)
    assert spread_ratio(one, RunningStatistics(one.mean, 4 * one.variance), 0.0) == 2


def test_measured_numbers_that_are_none_are_implausible():
    broken = RunningStatistics(np.full(12, np.nan), np.full(12, np.nan))
    assert implausible(at_first(IMAGES, "none"), {"none": broken}, "none", EPSILON) is not None
