"""How examples reach the network."""

import numpy as np
import pytest
import tensorflow as tf

from finetune.datasets import TensorFlowDatasets
from finetune.datasets.base import Split
from finetune.datasets.batches import class_weights, evaluation_batches, images_only, training_batches
from finetune.datasets.examples import fits_in_memory, make_examples

LABELS = [0] * 12 + [1] * 6 + [3] * 2


def split_of(labels, read=None):
    """Images of 8 px whose grey value is their place; `read` collects the places that are decoded."""

    def decode(place):
        if read is not None:
            read.append(int(place))
        return np.full((8, 8, 1), place, np.uint8)

    places = tf.data.Dataset.from_tensor_slices((np.arange(len(labels)), np.array(labels)))
    raw = places.map(
        lambda place, label: (
            tf.ensure_shape(tf.numpy_function(decode, [place], tf.uint8), (8, 8, 1)),
            tf.strings.as_string(place),
            label,
        )
    )
    return Split("train", make_examples(raw, None, 8, len(labels)), len(labels), "numbers")


def dataset(**keys):
    return TensorFlowDatasets(name="numbers", **keys)


def places(batches):
    """The grey values, batch by batch."""
    return [batch[0][:, 0, 0, 0].astype(int).tolist() for batch in batches.as_numpy_iterator()]


def flat(batches):
    return [place for batch in places(batches) for place in batch]


def test_training_shuffles_anew_every_epoch_and_repeats_with_the_seed():
    split = split_of(LABELS)
    one, same, other = (training_batches(split, dataset(batch_size=4), seed) for seed in (7, 7, 8))
    first, second = places(one), places(one)
    assert sorted(place for batch in first for place in batch) == list(range(20))
    assert first != second
    assert [places(same), places(same)] == [first, second]
    assert places(other) != first


def test_images_keep_their_labels_through_the_shuffle():
    for images, labels in training_batches(split_of(LABELS), dataset(batch_size=4), 0).as_numpy_iterator():
        assert labels.tolist() == [LABELS[place] for place in images[:, 0, 0, 0]]


@pytest.mark.parametrize(("count", "batch_size", "sizes"), [(20, 8, [8, 8]), (20, 20, [20]), (5, 8, [5])])
def test_the_rest_of_an_epoch_is_dropped_unless_it_is_all_there_is(count, batch_size, sizes):
    batches = training_batches(split_of([0] * count), dataset(batch_size=batch_size), 0)
    assert [len(batch) for batch in places(batches)] == sizes
    assert batches.cardinality() == len(sizes)


def test_training_images_are_uint8_or_float_where_augmented():
    split = split_of(LABELS)
    plain = training_batches(split, dataset(batch_size=4), 0)
    flipped = training_batches(split, dataset(batch_size=4, augment=({"layer": "RandomFlip"},)), 0)
    assert plain.element_spec[0].dtype == tf.uint8
    assert flipped.element_spec[0].dtype == tf.float32
    # a plain image turned around is the same image, so only the order is left to compare
    assert places(flipped) == places(training_batches(split, dataset(batch_size=4), 0))
    assert plain.element_spec[1].dtype == flipped.element_spec[1].dtype == tf.int32


def test_evaluation_keeps_the_order_and_drops_nothing():
    batches = evaluation_batches(split_of(LABELS), 8)
    assert places(batches) == [list(range(8)), list(range(8, 16)), list(range(16, 20))]
    labels = np.concatenate([labels for _, labels in batches.as_numpy_iterator()])
    assert labels.tolist() == LABELS


@pytest.mark.parametrize(("limit", "count"), [(None, 20), (5, 5), (100, 20)])
def test_images_only_are_the_first_ones_without_labels(limit, count):
    batches = images_only(split_of(LABELS), 8, limit)
    assert [int(image[0, 0, 0]) for batch in batches for image in batch] == list(range(count))
    assert batches.element_spec.shape == (None, 8, 8, 3)


def test_a_split_that_fits_is_decoded_once():
    read = []
    split = split_of(LABELS, read)
    batches = training_batches(split, dataset(batch_size=20), 0)
    for _ in range(3):
        flat(batches)
    flat(evaluation_batches(split, 4))
    assert sorted(read) == list(range(20))


def test_limited_images_are_decoded_once_and_no_others():
    read = []
    batches = images_only(split_of(LABELS, read), 2, 6)
    for _ in range(3):
        list(batches)
    assert set(range(6)) <= set(read)
    assert len(read) < 20


def test_two_gigabytes_fit():
    assert fits_in_memory(13_000, 224)
    assert not fits_in_memory(13_300, 224)


def test_balanced_weights_count_all_classes_alike():
    weights = class_weights(split_of(LABELS), 5)
    # three classes have images: 20 / (3 * 12), 20 / (3 * 6), 20 / (3 * 2)
    assert weights == pytest.approx({0: 20 / 36, 1: 20 / 18, 2: 0.0, 3: 20 / 6, 4: 0.0})
    totals = [weights[c] * LABELS.count(c) for c in (0, 1, 3)]
    assert totals == pytest.approx([20 / 3] * 3)
