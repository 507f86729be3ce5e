"""A damaged SavedModel is refused in words, or means what TensorFlow's own loader makes of it; never a traceback."""

import random
import shutil

import numpy as np
import pytest
import tensorflow as tf

from finetune.errors import ModelError
from finetune.formats.saved_model import open_saved_model
from tests.formats.test_saved_model import hashes
from tests.nets import photographs

COPIES = 40


def flip(data, dice):
    place = dice.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << dice.randrange(8)]) + data[place + 1 :]


def cut(data, dice):
    return data[: dice.randrange(len(data))]


def blank(data, dice):
    start = dice.randrange(len(data))
    end = min(len(data), start + dice.randrange(1, 200))
    return data[:start] + bytes(end - start) + data[end:]


def swap(data, dice):
    one, other = sorted(dice.randrange(len(data)) for _ in range(2))
    return data[:one] + data[other:] + data[one:other]


def damage(folder, seed):
    """One of the files, in one of the ways."""
    dice = random.Random(seed)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = files[seed % len(files)]
    if dice.random() < 0.1:
        path.unlink()
    else:
        path.write_bytes(dice.choice([flip, flip, cut, blank, swap])(path.read_bytes(), dice))


@pytest.mark.parametrize("seed", range(COPIES))
def test_a_damaged_copy_is_refused_or_means_what_tensorflow_makes_of_it(made, tmp_path, seed):
    name = ("tf1_resource", "keras_3_export")[seed % 2]
    folder = tmp_path / "model"
    shutil.copytree(made(name), folder)
    damage(folder, seed // 2)
    before = hashes(folder)
    images = photographs(4)
    refused = ""
    try:
        model = open_saved_model(folder)
        outputs = model.predict({each.name: images for each in model.inputs})
        model.write(tmp_path / "copy")
    except ModelError as refusal:
        refused = str(refusal)
    assert hashes(folder) == before
    if refused:
        assert str(folder) in refused
        assert not (tmp_path / "copy").exists()
        return
    loaded = tf.saved_model.load(str(folder)).signatures["serving_default"]
    wanted = loaded(**{each.name: tf.constant(images) for each in model.inputs})
    for key, value in outputs.items():
        np.testing.assert_allclose(value, wanted[key].numpy(), rtol=0, atol=1e-5)
