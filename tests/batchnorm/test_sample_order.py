"""Warnings about images that one-pass statistics would mislead."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.batchnorm.sample_order import OrderWatch


def said(batches):
    watch = OrderWatch(batches)
    list(watch)
    return watch.warnings()


def pictures(count, seed=0):
    """Images whose class shows in where they are bright, among much that varies within a class."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, count)
    x = random.normal(0, 40, (count, 8, 8, 3)) + random.normal(120, 20, (count, 1, 1, 1))
    for label in range(4):
        x[labels == label, 2 * label : 2 * label + 2] += 40
    return x.astype(np.float32), labels


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_images_in_random_order_raise_no_warning(seed):
    x, _ = pictures(320, seed)
    assert said(np.split(x, 5)) == []


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_images_sorted_by_class_are_noticed(seed):
    x, labels = pictures(320, seed)
    (words,) = said(np.split(x[np.argsort(labels)], 5))
    assert words.startswith("the images look sorted: batches differ ")


def test_small_batches_are_named():
    x, _ = pictures(320)
    (words,) = said(np.split(x, 10))
    assert words.startswith("one_pass measured in batches of 32 images")


def test_a_short_last_batch_is_no_small_batch():
    x, _ = pictures(130)
    assert said([x[:64], x[64:128], x[128:]]) == []


@pytest.mark.parametrize("shape", [(5,), (2, 3), (3, 3, 1)])
def test_inputs_that_are_no_images_are_looked_at_as_they_are(shape):
    random = np.random.default_rng(0)
    x = np.sort(random.normal(size=(256, *shape)), axis=0)
    assert len(said(np.split(x, 4))) == 1
    assert said(np.split(random.permutation(x), 4)) == []


def test_one_batch_has_no_order():
    x, labels = pictures(320)
    assert said([x[np.argsort(labels)]]) == []
