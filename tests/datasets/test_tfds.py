"""Datasets of TFDS: split expressions, prepared or not, and what is said where something does not fit."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow_datasets as tfds

from finetune.datasets import TensorFlowDatasets
from finetune.datasets import tfds_builder as builders
from finetune.errors import DataError
from tests.datasets import pictures
from tests.datasets.pictures import SIDE, TEST, TRAIN, TinyShapes, numbers, pairs

DIVIDED = {"train": "train[:20]", "validation": "train[20:]"}
ADVICE = (
    "on a machine with a network run python -c "
    "\"import tensorflow_datasets as tfds; tfds.load('cifar10', data_dir='DIR')\", "
    "bring DIR here and write data_dir: DIR"
)


@pytest.fixture
def tiny(tiny_dir):
    """tiny_shapes with whatever a recipe says besides."""

    def load(seed=0, **keys):
        return TensorFlowDatasets(**{"name": "tiny_shapes", "data_dir": tiny_dir, **keys}).load(SIDE, seed)

    return load


def problems(call, *arguments, **keys):
    with pytest.raises(DataError) as caught:
        call(*arguments, **keys)
    return list(caught.value.problems)


def test_sub_splits_divide_the_stored_images(tiny):
    splits = tiny(**DIVIDED)
    assert (splits.train.count, splits.validation.count, splits.test.count) == (20, 10, TEST)
    together = numbers(splits.train) + numbers(splits.validation)
    assert sorted(together) == list(range(TRAIN))
    assert sorted(numbers(splits.test)) == list(range(TRAIN, TRAIN + TEST))


def test_every_image_keeps_its_own_label(tiny):
    splits = tiny(**DIVIDED, shift={"kind": "brightness", "severity": 1})
    assert all(label == (number - 30) % 2 for number, label in pairs(splits.train))


def test_calibration_is_the_training_images_unless_said(tiny):
    assert numbers(tiny(**DIVIDED).calibration) == numbers(tiny(**DIVIDED).train)
    said = tiny(train="train[:20]", validation="train[20:25]", calibration="train[25:]")
    assert numbers(said.calibration) == numbers(tiny(**DIVIDED).validation)[5:]


def test_the_order_is_the_same_every_time_and_whatever_the_seed(tiny):
    assert numbers(tiny(**DIVIDED).train) == numbers(tiny(seed=9, **DIVIDED).train)


def test_an_image_has_the_same_noise_in_every_sub_split(tiny):
    noisy = {"shift": {"kind": "noise", "severity": 1}}
    whole = [
        image
        for image, _ in tiny(train="train", validation="test[:6]", test="test[6:]", **noisy).train.examples
    ]
    part = [image for image, _ in tiny(**DIVIDED, **noisy).validation.examples]
    assert np.array_equal(np.stack(whole[20:]), np.stack(part))


def test_a_dataset_that_was_prepared_anew_in_its_place_is_read_as_it_is(tmp_path, monkeypatch):
    """Readers are kept, by what lies there."""
    for count in (TRAIN, TRAIN - 6):
        monkeypatch.setattr(pictures, "TRAIN", count)
        shutil.rmtree(tmp_path / "tiny_shapes", ignore_errors=True)
        builders.prepare("tiny_shapes", TinyShapes(data_dir=str(tmp_path)))
        for _ in range(2):
            read = TensorFlowDatasets(name="tiny_shapes", data_dir=str(tmp_path), **DIVIDED).load(SIDE, 0)
            assert sorted(numbers(read.train) + numbers(read.validation)) == list(range(count))


def test_a_description_names_expression_and_shift(tiny):
    assert tiny(**DIVIDED, shift={"kind": "fog"}).train.description == "tiny_shapes train[:20], fog 3"
    assert tiny(**DIVIDED).test.description == "tiny_shapes test"


def test_the_digest_tells_data_apart(tiny):
    told = {
        tiny(**DIVIDED).digest,
        tiny(train="train[:20]", validation="train[21:]").digest,
        tiny(**DIVIDED, shift={"kind": "fog"}).digest,
        tiny(**DIVIDED, shift={"kind": "fog", "severity": 4}).digest,
    }
    assert len(told) == 4
    assert tiny(**DIVIDED).digest in told


def test_the_data_sets_own_validation_split_is_used(flowers):
    splits = TensorFlowDatasets(name=flowers).load(16, 0)
    assert splits.validation.description == "oxford_flowers102 validation"
    assert len(splits.class_names) == 102
    assert splits.class_names[0] == "pink primrose"
    images = np.stack([image for image, _ in splits.validation.examples])
    assert images.shape == (6, 16, 16, 3)
    assert images.dtype == np.uint8


def test_no_validation_data(tiny):
    assert problems(tiny) == [
        "data.validation: no validation data: tiny_shapes has the splits train, test; "
        'write train: "train[:90%]" and validation: "train[90%:]"'
    ]


def test_splits_that_do_not_exist_are_named_with_those_that_do_all_at_once(tiny):
    assert problems(tiny, train="trian", validation="test[:6]", test="tset[6:]", calibration="train[:0]") == [
        "data.train: 'trian': Unknown split 'trian'. Should be one of ['train', 'test'].",
        "data.test: 'tset[6:]': Unknown split 'tset'. Should be one of ['train', 'test'].",
        "data.calibration: 'train[:0]': It holds no image.",
    ]


def test_an_expression_that_is_none(tiny):
    assert problems(tiny, train="train[:20", validation="train[20:]") == [
        "data.train: 'train[:20': Unrecognized split format: 'train[:20'. "
        "See format at https://www.tensorflow.org/datasets/splits"
    ]


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (
            {"train": "train", "validation": "train[20:]"},
            "data.train: 'train' and data.validation: 'train[20:]' share 10 images",
        ),
        (
            {"train": "train+test[:50%]", "validation": "test[50%:75%]", "test": "test[25%:50%]"},
            "data.train: 'train+test[:50%]' and data.test: 'test[25%:50%]' share 3 images",
        ),
        (
            {**DIVIDED, "calibration": "train[15:]"},
            "data.validation: 'train[20:]' and data.calibration: 'train[15:]' share 10 images",
        ),
    ],
)
def test_splits_that_share_images_are_refused(tiny, keys, line):
    assert problems(tiny, **keys) == [line]


def test_calibration_may_share_images_with_train(tiny):
    assert tiny(**DIVIDED, calibration="train[:5]").calibration.count == 5


def test_a_name_that_is_nearly_right():
    assert problems(builders.find_builder, "oxford_flower102", None) == [
        "data.name: TFDS has no dataset 'oxford_flower102'; "
        "did you mean oxford_flowers102, tf_flowers, oxford_iiit_pet?"
    ]


def test_a_name_like_no_other():
    assert problems(builders.find_builder, "qqqqqqq", None) == [
        "data.name: TFDS has no dataset 'qqqqqqq'; see https://www.tensorflow.org/datasets/catalog"
    ]


def test_a_version_that_does_not_exist(tmp_path):
    (line,) = problems(builders.find_builder, "cifar10:9.0.0", str(tmp_path))
    assert line.startswith(
        "data.name: 'cifar10:9.0.0': Dataset cifar10 cannot be loaded at version 9.0.0, only: "
    )


def test_missing_data_without_a_network_is_said_without_trying_to_download(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(builders, "answers", lambda url: asked.append(url))
    monkeypatch.setattr(builders, "prepare", lambda *arguments: pytest.fail("tried to download"))
    assert problems(builders.prepared_builder, "cifar10", str(tmp_path), download=True) == [
        f"data.name: cifar10 is not prepared in {tmp_path} and no network answers; {ADVICE}"
    ]
    # the very server that has the data was asked
    assert asked == ["https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"]


def test_missing_data_that_must_not_be_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(builders, "answers", lambda url: pytest.fail("went to the network"))
    assert problems(builders.prepared_builder, "cifar10", str(tmp_path), download=False) == [
        f"data.name: cifar10 is not prepared in {tmp_path} and download is false; {ADVICE}"
    ]


def test_prepared_data_needs_no_network(tiny_dir, monkeypatch):
    monkeypatch.setattr(builders, "answers", lambda url: pytest.fail("went to the network"))
    assert builders.prepared_builder("tiny_shapes", tiny_dir, download=True).is_prepared()


def test_with_a_network_missing_data_is_prepared_and_stdout_stays_clean(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(builders, "answers", lambda url: True)
    assert builders.prepared_builder("tiny_shapes", str(tmp_path), download=True).is_prepared()
    assert capsys.readouterr().out == ""


def test_of_several_that_would_prepare_a_dataset_the_others_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(builders, "answers", lambda url: True)
    prepared, prepare, together = [], builders.prepare, threading.Barrier(3)
    monkeypatch.setattr(builders, "first_url", lambda builder: together.wait())

    def counted(name, builder):
        prepared.append(name)
        prepare(name, builder)

    monkeypatch.setattr(builders, "prepare", counted)
    with ThreadPoolExecutor(3) as threads:
        found = list(
            threads.map(builders.prepared_builder, ["tiny_shapes"] * 3, [str(tmp_path)] * 3, [True] * 3)
        )
    assert prepared == ["tiny_shapes"]
    assert [each.info.splits["train"].num_examples for each in found] == [TRAIN] * 3


def test_a_preparation_that_fails_is_said_in_one_line(tmp_path, monkeypatch):
    builder = builders.find_builder("tiny_shapes", str(tmp_path))

    def fail():
        raise ConnectionError("the server\nhung up")

    monkeypatch.setattr(builder, "download_and_prepare", fail)
    assert problems(builders.prepare, "tiny_shapes", builder) == [
        f"data.name: tiny_shapes could not be prepared in {builder.data_dir}: the server hung up"
    ]


LABEL = tfds.features.ClassLabel(num_classes=2)
IMAGE = tfds.features.Image(shape=(None, None, 3))


@pytest.mark.parametrize(
    ("features", "line"),
    [
        ({"image": IMAGE, "boxes": LABEL}, "x has image, boxes; an image and a label are needed"),
        (
            {"image": IMAGE, "label": tfds.features.ClassLabel(num_classes=1)},
            "the label of x is ClassLabel(shape=(), dtype=int64, num_classes=1); at least two classes are needed",
        ),
        (
            {"image": tfds.features.Image(shape=(None, None, 4)), "label": LABEL},
            "the image of x is Image(shape=(None, None, 4), dtype=uint8); uint8 of 1 or 3 channels is needed",
        ),
    ],
)
def test_what_is_no_set_of_labelled_images_is_refused(features, line):
    found = problems(builders.check_features, "x", tfds.features.FeaturesDict(features))
    assert found == [f"data.name: {line}"]
