"""A look at the data of a whole recipe, on a small network with sites of its own."""

import json

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from finetune.cli.looking import as_plain
from finetune.data_run import look_at_data
from finetune.datasheet.pictures import pairs
from finetune.datasheet.repeats import Repeats
from finetune.errors import OutputError
from finetune.feature_cache import ImageSource
from finetune.recipe_file import load_text

RECIPE = """
name: small
backbone: {{source: saved, path: {folder}/{weights}.keras}}
data:
  source: tfds
  name: fashion_shift
  train: "train[:96]"
  validation: "validation[:200]"
  test: "test[:200]"
  calibration: "train[:64]"
  image_size: 12
  augment: [{{layer: RandomFlip, options: {{mode: horizontal}}}}]
batchnorm: {{policy: freeze}}
stages: [{{train: head, epochs: 1, learning_rate: 0.1}}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Backbones with statistics that fit the images, that are a thousand times too large, and that are new."""
    folder = tmp_path_factory.mktemp("data")
    for name, scale in (("fits", 1.0), ("far", 1000.0), ("new", None)):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((12, 12, 3))
        site = layers.BatchNormalization(name="bn_1")
        x = site(inputs)
        x = layers.BatchNormalization(name="bn_2")(layers.Conv2D(4, 3)(x))
        if scale:
            site.moving_mean.assign(np.full(3, 70.0 * scale))
            site.moving_variance.assign(np.full(3, (90.0 * scale) ** 2))
        keras.Model(inputs, x, name="tiny").save(folder / f"{name}.keras")
    return folder


def recipe(folder, weights="fits", *overrides):
    return load_text(RECIPE.format(folder=folder, weights=weights), overrides=overrides)


def pictures(folder):
    """(96, 12, 12, 3): the training images, in float64."""
    loaded = recipe(folder).data.load(12, 0)
    return np.stack([image for image, _ in loaded.train.examples.as_numpy_iterator()]).astype(np.float64)


def test_what_reaches_the_first_site_is_measured(folder):
    look, images = look_at_data(recipe(folder)), pictures(folder)
    np.testing.assert_allclose(look.readings[0].mean, images.mean((0, 1, 2)), atol=1e-6)
    # nothing lies in front of this network's first site
    np.testing.assert_allclose(look.reaches.mean, images.mean((0, 1, 2)), atol=1e-6)
    assert look.reaches.first_site == "saved/bn_1"
    expected = np.abs(images.mean((0, 1, 2)) - 70.0) / np.sqrt(90.0**2 + 1e-3)
    assert look.reaches.apart == pytest.approx(expected.mean(), rel=1e-4)
    assert not look.reaches.implausible


@pytest.mark.parametrize(("weights", "implausible"), [("fits", False), ("far", True), ("new", False)])
def test_a_first_site_that_never_saw_such_images_is_told_from_one_that_saw_none(folder, weights, implausible):
    assert look_at_data(recipe(folder, weights)).reaches.implausible is implausible


def test_copies_of_training_pictures_among_those_of_the_test_are_found(folder, tmp_path):
    """Under other names, one of them in another class; TFDS splits cannot share images."""
    random = np.random.default_rng(0)
    for split, count in (("train", 24), ("validation", 6), ("test", 6), ("calibration", 6)):
        for label in ("left", "right"):
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (12, 12, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / label / f"{split}{number}.png")
    for number, label in ((0, "left"), (1, "left"), (2, "right")):
        copied = (tmp_path / "train/left" / f"train{number}.png").read_bytes()
        (tmp_path / "test" / label / f"copy{number}.png").write_bytes(copied)
    text = RECIPE.format(folder=folder, weights="fits")
    before, after = text.partition("data:")[0], "  image_size: 12" + text.partition("  image_size: 12")[2]
    look = look_at_data(load_text(f"{before}data:\n  source: image_folder\n  path: {tmp_path}\n{after}"))
    assert look.repeated == (Repeats(("train", "test"), 3, 1),)
    assert look.concerns[0] == "1 image has two different classes in train and test: correct the labels"
    assert look.concerns[1].startswith(
        "3 images of test are in train, too: what is measured on test is too good"
    )


def test_the_page_is_written_whole_and_json_can_be_read(folder, tmp_path):
    look = look_at_data(recipe(folder), tmp_path / "data.html")
    assert [path.name for path in tmp_path.iterdir()] == ["data.html"]
    assert (tmp_path / "data.html").read_text().count("data:image/png") == 48
    assert json.loads(json.dumps(as_plain(look)))["splits"]["train"]["images"] == 96


def test_a_page_that_cannot_be_written_is_one_line(folder, tmp_path):
    with pytest.raises(
        OutputError, match=r"data\.html: the page cannot be written \(No such file or directory\)"
    ):
        look_at_data(recipe(folder), tmp_path / "missing" / "data.html")


def test_pairs_are_the_images_and_what_the_training_gets_of_them(folder):
    loaded = recipe(folder)
    splits = loaded.data.load(12, 0)
    plain = loaded.data.model_copy(update={"augment": ()})
    same = pairs(ImageSource(splits, plain, 0, 8), splits.class_names, 40)
    assert len(same) == 40
    assert all(pair.before == pair.after for pair in same)
    flipped = pairs(ImageSource(splits, loaded.data, 0, 8), splits.class_names, 40)
    assert [pair.before for pair in flipped] == [pair.before for pair in same]
    assert 5 < sum(pair.before != pair.after for pair in flipped) < 35
