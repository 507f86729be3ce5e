"""Places stand for images: epoch for epoch, batch for batch."""

import numpy as np
import pytest

from finetune.datasets import examples
from finetune.datasets.batches import evaluation_batches, training_batches
from tests.feature_cache.samples import EVALUATION_BATCH, source


def labels_at(split, batches):
    """The labels at these places of a split, batch by batch."""
    labels = np.array([label for _, label in split.examples.as_numpy_iterator()])
    return [labels[places].tolist() for places in batches.as_numpy_iterator()]


def images_at(split, batches):
    images = np.array([image for image, _ in split.examples.as_numpy_iterator()])
    return [images[places] for places in batches.as_numpy_iterator()]


@pytest.mark.parametrize(("count", "buffered"), [(29, 29), (29, 10), (5, 5), (8, 8)])
def test_every_epoch_has_the_images_of_the_uncached_one_in_its_order(count, buffered, monkeypatch):
    monkeypatch.setattr(examples, "KEPT_IN_MEMORY", buffered * 8 * 8 * 3)
    images = source(count)
    uncached = training_batches(images.splits.train, images.dataset, images.seed)
    order = images.training_order()
    assert order.cardinality() == uncached.cardinality()
    for _ in range(3):
        for expected, found in zip(uncached, images_at(images.splits.train, order), strict=True):
            np.testing.assert_array_equal(expected[0], found)


def test_no_two_epochs_and_no_two_seeds_have_the_same_order():
    orders = [source(seed=seed).training_order() for seed in (5, 6)]
    epochs = [np.concatenate(list(order.as_numpy_iterator())).tolist() for order in orders for _ in range(2)]
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_validation_is_read_in_order_to_its_end():
    images = source()
    uncached = [
        y.tolist()
        for _, y in evaluation_batches(images.splits.validation, EVALUATION_BATCH).as_numpy_iterator()
    ]
    assert labels_at(images.splits.validation, images.validation_order()) == uncached
    assert sum(map(len, uncached)) == 17


def test_with_views_the_images_stay_and_each_is_one_of_its_views():
    images = source(augment=({"layer": "RandomFlip"},))
    plain, drawn = images.training_order(), images.training_order(views=3)
    views = []
    for _ in range(3):
        one, other = (np.concatenate(list(order.as_numpy_iterator())) for order in (plain, drawn))
        np.testing.assert_array_equal(other % 29, one)
        views.append(other // 29)
    assert set(np.concatenate(views)) == {0, 1, 2}
    assert len({tuple(epoch) for epoch in views}) == 3
    again = np.concatenate(list(images.training_order(views=3).as_numpy_iterator()))
    np.testing.assert_array_equal(again // 29, views[0])


def test_augmented_images_are_read_once_a_view_and_each_time_drawn_anew():
    images = source(augment=({"layer": "RandomFlip"},)).training(views=2)
    assert images.passes == 2
    first, second = (np.concatenate([x for x, _ in images.batches.as_numpy_iterator()]) for _ in range(2))
    assert first.shape == second.shape == (29, 8, 8, 3)
    assert (first != second).any()


def test_what_is_not_augmented_needs_one_pass_whatever_is_asked():
    assert source().training(views=4).passes == 1
