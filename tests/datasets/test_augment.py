"""Augmentation: new images every epoch, the same ones for the same seed, labels untouched."""

from typing import get_args

import keras
import numpy as np
import pytest
import tensorflow as tf

from finetune.datasets.augment import Augmentation, Layer
from finetune.datasets.augmentation_layers import augmented, build_layers
from finetune.errors import DataError

SIZE = 8
OPTIONS = {
    "RandAugment": {"augmentations_per_image": 1},
    "RandomBrightness": {"factor": 0.3},
    "RandomColorJitter": {
        "brightness_factor": 0.3,
        "contrast_factor": 0.3,
        "saturation_factor": 0.3,
        "hue_factor": 0.1,
    },
    "RandomContrast": {"factor": 0.5},
    "RandomCropAndResize": {"crop_area_factor": [0.5, 0.9], "aspect_ratio_factor": [0.8, 1.2]},
    "RandomFlip": {"mode": "horizontal_and_vertical"},
    "RandomGaussianBlur": {"kernel_size": 3, "factor": [0.5, 2.0]},
    "RandomHue": {"factor": 0.4},
    "RandomRotation": {"factor": 0.2},
    "RandomSaturation": {"factor": [0.1, 0.9]},
    "RandomSharpness": {"factor": 1.0},
    "RandomShear": {"x_factor": 0.4},
    "RandomTranslation": {"height_factor": 0.3, "width_factor": 0.3},
    "RandomZoom": {"height_factor": 0.4},
}
# the same image over and over: what differs then was drawn
IMAGES = np.repeat(np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8), 12, axis=0)
LABELS = np.arange(12, dtype=np.int32)
FLIP = (Augmentation(layer="RandomFlip"),)


def batches(*augmentations, seed=3):
    data = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(6)
    return augmented(data, augmentations, SIZE, seed)


def epoch(dataset):
    images, labels = zip(*dataset.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def test_there_is_a_try_of_every_layer():
    assert len(OPTIONS) == 14
    assert set(OPTIONS) == set(get_args(Layer))


@pytest.mark.parametrize("layer", OPTIONS)
def test_epochs_differ_and_all_of_them_repeat_with_the_seed(layer):
    augmentation = Augmentation(layer=layer, options=OPTIONS[layer])
    dataset, again = batches(augmentation), batches(augmentation)
    (first, labels), (second, _) = epoch(dataset), epoch(dataset)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, epoch(again)[0])
    assert np.array_equal(second, epoch(again)[0])
    assert first.dtype == np.float32
    assert first.shape == IMAGES.shape
    assert 0 <= first.min() <= first.max() <= 255
    assert labels.tolist() == LABELS.tolist()
    # neither all images of a batch alike, nor all batches
    assert len(np.unique(first[:6], axis=0)) > 1
    assert not np.array_equal(first[:6], first[6:])


def test_another_seed_draws_other_images_and_zero_is_a_seed_too():
    rotation = Augmentation(layer="RandomRotation", options={"factor": 0.2})
    zero, one = epoch(batches(rotation, seed=0))[0], epoch(batches(rotation, seed=1))[0]
    assert not np.array_equal(zero, one)
    assert np.array_equal(zero, epoch(batches(rotation, seed=0))[0])


def test_an_epoch_that_was_broken_off_changes_nothing_about_the_next():
    # so many batches that reading ahead does not come to the end
    many = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).repeat(20).batch(2)
    whole, broken = augmented(many, FLIP, SIZE, 3), augmented(many, FLIP, SIZE, 3)
    epoch(whole)
    next(iter(broken))
    assert np.array_equal(epoch(whole)[0], epoch(broken)[0])


def test_layers_follow_one_another():
    dark = Augmentation(layer="RandomBrightness", options={"factor": [-1.0, -1.0]})
    assert epoch(batches(*FLIP, dark))[0].max() == 0


def test_values_stay_exact_under_mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        images, _ = epoch(batches(*FLIP))
    finally:
        keras.config.set_dtype_policy(before)
    assert images.dtype == np.float32
    assert set(np.unique(images)) <= set(np.unique(IMAGES))


def test_wrong_options_are_all_named():
    wrong = [
        Augmentation(layer="RandomFlip", options={"moed": "horizontal", "seed": 1}),
        Augmentation(layer="RandomZoom"),
        Augmentation(layer="RandAugment", options={"magnitude": 7}),
    ]
    with pytest.raises(DataError) as caught:
        build_layers(wrong, SIZE, tf.random.Generator.from_seed(0))
    assert caught.value.problems == (
        "data.augment: RandomFlip has no option 'moed'; it takes mode, rate",
        "data.augment: RandomFlip has no option 'seed'; it takes mode, rate",
        "data.augment: RandomZoom needs the option 'height_factor'",
        "data.augment: RandAugment with {'magnitude': 7}: `magnitude` must be in the range [0, 1], got `magnitude=7`",
    )
