"""What one reading of the splits finds, against NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from finetune.datasets.base import Split
from finetune.datasheet.reading import Reading, read_split
from finetune.datasheet.repeats import Repeats, repeats

CLASSES = 3


def split(name, images, labels):
    examples = tf.data.Dataset.from_tensor_slices((images, np.asarray(labels, np.int32)))
    return Split(name, examples, len(images), f"{name} of a test")


def test_counts_and_moments_are_those_of_all_pixels():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (300, 8, 8, 3)).astype(np.uint8)
    images[..., 1] //= 4
    labels = random.integers(0, 2, 300)
    found = read_split(split("train", images, labels), CLASSES)
    assert found.counts == (*np.bincount(labels, minlength=2).tolist(), 0)
    assert found.labels == tuple(labels.tolist())
    np.testing.assert_allclose(found.mean, images.mean((0, 1, 2), np.float64), atol=1e-9)
    np.testing.assert_allclose(found.spread, images.std((0, 1, 2), np.float64), atol=1e-9)


def test_images_have_the_same_mark_only_where_every_pixel_is_the_same():
    images = np.zeros((3, 8, 8, 3), np.uint8)
    images[1, 7, 7, 2] = 1
    one, other, again = read_split(split("train", images, [0, 0, 0]), CLASSES).marks
    assert one == again != other


def reading(name, *pictures):
    """pictures: (which picture, label)."""
    marks, labels = tuple(bytes([p]) for p, _ in pictures), tuple(label for _, label in pictures)
    return Reading(name, name, (0,) * CLASSES, (0.0,) * 3, (0.0,) * 3, marks, labels)


def test_what_is_in_two_splits_is_counted_in_the_second():
    train, test = reading("train", (1, 0), (2, 1)), reading("test", (2, 1), (2, 1), (1, 2), (3, 0))
    # within test the second picture 2 is a repeat as well
    assert repeats([train, test]) == (Repeats(("train", "test"), 3, 1), Repeats(("test", "test"), 1, 0))


def test_calibration_may_have_the_training_images_but_not_those_of_the_test():
    train, test, calibration = (
        reading("train", (1, 0)),
        reading("test", (2, 0)),
        reading("calibration", (1, 0), (2, 0)),
    )
    assert repeats([train, test, calibration]) == (Repeats(("test", "calibration"), 1, 0),)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), max_size=20),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), max_size=20),
)
def test_repeats_are_those_of_a_look_at_every_pair(one, other):
    between = [p for p in other if any(p[0] == q[0] for q in one)]
    against = [p for p in between if not any(p == q for q in one)]
    within = [i for i, p in enumerate(one) if any(p[0] == q[0] for q in one[:i])]
    found = {each.splits: each for each in repeats([reading("train", *one), reading("test", *other)])}
    assert found.get(("train", "test"), Repeats(("train", "test"), 0, 0)) == Repeats(
        ("train", "test"), len(between), len(against)
    )
    same = found.get(("train", "train"))
    assert (same.images if same else 0) == len(within)


@pytest.mark.parametrize("count", [1, 128, 129])
def test_every_image_is_read_whatever_the_batches(count):
    assert (
        read_split(split("test", np.zeros((count, 8, 8, 3), np.uint8), [0] * count), CLASSES).total == count
    )
