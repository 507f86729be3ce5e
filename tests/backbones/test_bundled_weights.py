"""The bundled backbone is what its provenance says: size, sites, accuracy, licence."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from keras.layers import BatchNormalization

import finetune
from finetune.assemble import assemble
from finetune.backbones import Bundled
from finetune.backbones.bundled_weights import FOLDER, provenance
from finetune.datasets.resize import to_square_uint8
from finetune.heads import Linear

IMAGES = Path(finetune.__file__).parent / "datasets" / "fashion_shift"


@pytest.fixture(scope="module")
def built():
    return Bundled().build(56)


def test_images(count):
    with gzip.open(IMAGES / "t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28, 1)[:count]
    with gzip.open(IMAGES / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)[:count]
    return to_square_uint8(tf.constant(images), 56), labels


test_images.__test__ = False


def test_it_has_the_sites_and_parameters_of_a_quarter_width_resnet50(built):
    sites = [layer for layer in built.model.layers if isinstance(layer, BatchNormalization)]
    assert len(sites) == provenance()["bn_sites"] == 53
    assert built.model.output_shape == (None, 2, 2, 512)


def test_it_knows_the_classes_it_was_trained_on(built):
    images, labels = test_images(1000)
    model = assemble(built, Linear(weights="pretrained"), tuple(provenance()["class_names"]), 56)
    predicted = model.predict(images, batch_size=250, verbose=0).argmax(-1)
    assert np.mean(predicted == labels) > 0.88
    assert provenance()["test_accuracy"] >= 0.91


def test_the_weights_are_small_and_are_those_that_were_measured():
    weights = FOLDER / provenance()["file"]
    assert weights.stat().st_size <= 8 * 2**20
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == provenance()["sha256"]


def test_the_provenance_says_everything():
    assert set(provenance()) == {
        "name", "architecture", "parameters", "bn_sites", "file", "sha256", "licence", "data", "class_names",
        "image_size", "test_accuracy", "test_images", "command", "seed", "epochs", "seconds", "machine", "date",
        "versions",
    }  # fmt: skip
    assert set(provenance()["versions"]) == {"tensorflow", "keras", "keras-cv", "numpy"}
    assert provenance()["licence"] == "MIT"
    assert provenance()["data"]["licence"] == "MIT, Zalando SE"


def test_what_matters_of_it_travels_with_every_model(built):
    assert built.origin["sha256"] == provenance()["sha256"]
    assert built.origin["licence"] == "MIT"
    assert built.origin["data"]["licence"] == "MIT, Zalando SE"
