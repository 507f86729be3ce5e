"""The camera changes what an image looks like, and nothing else."""

import subprocess
import sys
from typing import get_args

import numpy as np
import pytest
from pydantic import ValidationError

from finetune.datasets.camera import Kind, Shift
from finetune.datasets.camera_effects import EFFECTS
from finetune.datasets.fashion_shift.fashion_shift_dataset_builder import read_test_images

KINDS = get_args(Kind)
IDS = list(range(6))


@pytest.fixture(scope="module")
def photos():
    """Six colour images that are not square."""
    grey = read_test_images()[0][:18, :, 4:24]
    return np.concatenate([grey[:6], grey[6:12], grey[12:]], axis=-1)


def test_there_are_seven_kinds_and_each_has_its_arithmetic():
    assert len(KINDS) == 7
    assert set(KINDS) == set(EFFECTS)


@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize("kind", KINDS)
def test_every_shift_changes_every_image_and_keeps_shape_and_type(kind, severity, photos):
    for images in (photos, photos[..., :1]):
        seen = Shift(kind=kind, severity=severity).apply(images, IDS)
        assert seen.dtype == np.uint8
        assert seen.shape == images.shape
        assert (seen != images).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_looks_the_same_whatever_its_batch_mates_and_its_place(kind, photos):
    shift = Shift(kind=kind)
    together = shift.apply(photos, IDS)
    reversed_order = shift.apply(photos[::-1], IDS[::-1])[::-1]
    alone = np.concatenate([shift.apply(photos[i : i + 1], IDS[i : i + 1]) for i in IDS])
    assert np.array_equal(together, reversed_order)
    assert np.array_equal(together, alone)


@pytest.mark.parametrize("kind", KINDS)
def test_the_images_given_are_left_alone(kind, photos):
    before = photos.copy()
    Shift(kind=kind).apply(photos, IDS)
    assert np.array_equal(photos, before)


@pytest.mark.parametrize("kind", ["fog", "noise"])
def test_what_is_random_follows_the_id(kind):
    grey = np.full((2, 28, 28, 1), 90, np.uint8)
    one, other = Shift(kind=kind).apply(grey, ["a", "b"])
    again, _ = Shift(kind=kind).apply(grey, ["a", "c"])
    assert not np.array_equal(one, other)
    assert np.array_equal(one, again)


def test_what_is_random_is_the_same_in_every_process():
    here = Shift(kind="noise").apply(np.zeros((1, 4, 4, 1), np.uint8), ["cat/1.png"])
    code = (
        "import numpy as np; from finetune.datasets.camera import Shift;"
        "print(Shift(kind='noise').apply(np.zeros((1, 4, 4, 1), np.uint8), ['cat/1.png']).tobytes().hex())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert there.strip() == here.tobytes().hex()


@pytest.mark.parametrize("kind", ["fog", "contrast", "brightness", "noise", "blur", "jpeg"])
def test_a_higher_severity_changes_more(kind, photos):
    apart = [
        np.abs(Shift(kind=kind, severity=s).apply(photos, IDS).astype(float) - photos).mean()
        for s in range(1, 6)
    ]
    assert apart == sorted(apart)
    assert len(set(apart)) == 5


def test_inverting_twice_gives_the_image_back(photos):
    shift = Shift(kind="invert")
    assert np.array_equal(shift.apply(shift.apply(photos, IDS), IDS), photos)


def test_contrast_shrinks_the_distance_from_mid_grey():
    image = np.array([0, 255], np.uint8).reshape(1, 1, 2, 1)
    # severity 3 keeps 40 percent: 127.5 - 51 and 127.5 + 51, rounded to even
    assert Shift(kind="contrast").apply(image, [0]).ravel().tolist() == [76, 178]


def test_fog_is_bright_smooth_and_swallows_half_of_the_contrast():
    black_and_white = np.stack([np.zeros((28, 28, 1), np.uint8), np.full((28, 28, 1), 255, np.uint8)])
    black, white = Shift(kind="fog").apply(black_and_white, ["same id", "same id"]).astype(float)
    assert black.min() > 80
    assert np.abs(np.diff(black, axis=0)).max() < 15
    assert np.abs(white - black - 127.5).max() <= 0.5


def test_values_stay_inside_0_to_255():
    bright = np.full((1, 8, 8, 3), 250, np.uint8)
    assert Shift(kind="brightness", severity=5).apply(bright, [0]).min() == 255


@pytest.mark.parametrize(
    "wrong", [{"kind": "rain"}, {"kind": "fog", "severity": 6}, {"kind": "fog", "severity": 0}]
)
def test_other_kinds_and_severities_are_refused(wrong):
    with pytest.raises(ValidationError):
        Shift(**wrong)


def test_a_shift_reads_as_words():
    assert str(Shift(kind="fog")) == "fog 3"
