"""The data sheet of fashion_shift."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from finetune.datasets.fashion_shift import fashion_shift_dataset_builder as shipped
from finetune.datasets.tfds_builder import prepared_builder

SIZES = {"train": 4000, "validation": 1500, "calibration": 1500, "test": 3000}


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    """Prepared from the files in the package, by name, without a network."""
    return prepared_builder("fashion_shift", str(tmp_path_factory.mktemp("fashion")), download=False)


@pytest.fixture(scope="module")
def rows(builder):
    return {name: list(builder.as_dataset(split=name).as_numpy_iterator()) for name in SIZES}


def test_it_has_four_splits_of_the_promised_sizes(builder, rows):
    assert {name: info.num_examples for name, info in builder.info.splits.items()} == SIZES
    assert {name: len(found) for name, found in rows.items()} == SIZES


def test_no_image_is_in_two_splits_and_all_are_in_one(rows):
    ids = [int(row["id"]) for found in rows.values() for row in found]
    assert sorted(ids) == list(range(10000))


def test_a_split_is_a_range_of_image_ids(rows):
    for name, found in rows.items():
        assert {int(row["id"]) for row in found} == set(shipped.SPLIT_IDS[name])


def test_images_and_labels_are_those_of_the_files(rows):
    images, labels = shipped.read_test_images()
    for found in rows.values():
        assert all(np.array_equal(row["image"], images[row["id"]]) for row in found)
        assert all(row["label"] == labels[row["id"]] for row in found)


def test_every_split_has_all_ten_classes_about_alike(rows):
    for found in rows.values():
        shares = np.bincount([row["label"] for row in found], minlength=10) / len(found)
        assert shares.min() > 0.08
        assert shares.max() < 0.12


def test_an_example_is_a_small_grey_image_with_its_label_and_id(builder):
    features = builder.info.features
    assert features["image"].shape == (28, 28, 1)
    assert features["image"].np_dtype == np.uint8
    assert set(features) == {"image", "label", "id"}
    assert builder.info.supervised_keys == ("image", "label")


def test_it_says_what_it_is_and_whose_work(builder):
    assert builder.info.full_name == "fashion_shift/1.0.0"
    assert builder.info.redistribution_info.license == "MIT, Copyright (c) 2017 Zalando SE"
    assert "1708.07747" in builder.info.citation
    assert "share no\nimage" in builder.info.description


def test_its_tags_are_among_those_that_tfds_knows(builder):
    tags = builder.get_metadata().tags
    assert tags == ["content.data-type.image", "ml.task.image-classification"]


def test_tfds_knows_it_by_name():
    assert "fashion_shift" in tfds.list_builders(with_community_datasets=False)


def test_the_classes_are_those_of_fashion_mnist_a_thousand_images_each(builder):
    _, labels = shipped.read_test_images()
    assert builder.info.features["label"].names == list(shipped.CLASS_NAMES)
    assert np.bincount(labels).tolist() == [1000] * 10
    # the first ten labels of the published test set
    assert labels[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]


def test_the_licence_text_lies_beside_the_data():
    text = (shipped.FILES / "LICENSE").read_text()
    assert "Copyright (c) 2017 Zalando SE" in text
    assert "The MIT License" in text
