"""SavedModels of Keras 2 as backbones: tf_keras, which wrote them, says what they compute."""

import shutil

import keras
import numpy as np
import pytest
import tf_keras

from finetune.backbones import Saved
from finetune.backbones.keras2_saved_model import METADATA, read_keras2
from finetune.batchnorm.sites import find_sites
from finetune.errors import WeightsError

SIDE = 16


def drawn(model):
    rng = np.random.default_rng(0)
    model.set_weights(
        [
            rng.uniform(0.2, 1.0, weight.shape) if weight.ndim == 1 else rng.normal(0, 0.3, weight.shape)
            for weight in model.get_weights()
        ]
    )
    return model


def branching():
    """Two branches, a nested Sequential, a depthwise and a separable convolution, five sites in depth."""
    layers = tf_keras.layers
    image = tf_keras.Input((SIDE, SIDE, 3))
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(4, 3, use_bias=False)(image)))
    left = layers.BatchNormalization(momentum=0.9)(layers.DepthwiseConv2D(3, padding="same")(x))
    x = layers.Add()([left, layers.BatchNormalization(epsilon=1e-5)(layers.Conv2D(4, 1)(x))])
    x = tf_keras.Sequential([layers.Conv2D(8, 3), layers.BatchNormalization()], name="nested")(x)
    x = layers.BatchNormalization(scale=False)(layers.SeparableConv2D(6, 3)(x))
    return tf_keras.Model(image, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(x)))


def frozen_in_part():
    """Where a layer is not trainable, its weights lie in another order."""
    model = branching()
    model.layers[2].trainable = False
    model.get_layer("nested").layers[0].trainable = False
    return model


def sequential():
    layers = tf_keras.layers
    return tf_keras.Sequential(
        [
            tf_keras.Input((SIDE, SIDE, 3)),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )


def published():
    return tf_keras.applications.MobileNetV2(input_shape=(32, 32, 3), alpha=0.35, weights=None, classes=4)


@pytest.mark.parametrize("make", [branching, frozen_in_part, sequential, published])
def test_the_model_computes_what_tf_keras_computes(make, tmp_path):
    old = drawn(make())
    old.save(tmp_path / "model", save_format="tf")
    new = read_keras2(tmp_path / "model")
    images = np.random.default_rng(1).uniform(0, 1, (3, *old.input_shape[1:])).astype(np.float32)
    np.testing.assert_allclose(new(images), old(images), rtol=1e-4, atol=1e-5)
    assert new.count_params() == old.count_params()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("keras2") / "model"
    drawn(branching()).save(where, save_format="tf")
    return where


def test_it_is_a_backbone_with_its_classifier_momentum_and_epsilon(folder):
    saved = Saved(path=str(folder))
    assert saved.default_image_size == SIDE
    built = saved.build(SIDE)
    assert built.classifier.kernel.shape == (6, 3)
    sites = find_sites(built.model, np.zeros((1, SIDE, SIDE, 3), np.float32))
    assert [site.momentum for site in sites] == [0.99, 0.9, 0.99, 0.99, 0.99]
    assert [site.epsilon for site in sites] == [1e-3, 1e-3, 1e-5, 1e-3, 1e-3]


def refusal(folder):
    with pytest.raises(WeightsError) as caught:
        Saved(path=str(folder)).build(SIDE)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(folder), "FOLDER")


def test_an_export_of_keras_3_has_no_layers_to_take(tmp_path):
    keras.Sequential([keras.Input((SIDE, SIDE, 3)), keras.layers.Conv2D(2, 3)]).export(
        tmp_path / "model", verbose=False
    )
    assert refusal(tmp_path / "model").startswith(
        "FOLDER: no SavedModel with Keras metadata (keras_metadata.pb)"
    )


def test_a_class_in_python_code_is_refused(tmp_path):
    class Own(tf_keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = tf_keras.layers.Dense(2)

        def call(self, images):
            return self.dense(images)

    own = Own()
    own(np.zeros((1, 4), np.float32))
    own.save(tmp_path / "model", save_format="tf")
    assert refusal(tmp_path / "model").startswith(
        "FOLDER: holds a Own, whose layers only its Python code knows"
    )


def test_a_lambda_is_refused(tmp_path):
    image = tf_keras.Input((SIDE, SIDE, 3))
    tf_keras.Model(image, tf_keras.layers.Lambda(lambda x: x * 2)(image)).save(
        tmp_path / "model", save_format="tf"
    )
    assert "holds Python code (a Lambda layer), which is never run from a file" in refusal(tmp_path / "model")


def test_what_the_graph_does_differently_is_noticed(folder, tmp_path):
    """The metadata of a network with another epsilon beside the graph of this one."""
    shutil.copytree(folder, tmp_path / "model")
    path = tmp_path / "model" / METADATA
    path.write_bytes(path.read_bytes().replace(b'"epsilon": 1e-05', b'"epsilon": 3.5e0'))
    assert path.read_bytes() != (folder / METADATA).read_bytes()
    assert "built by Keras 3 it computes something else" in refusal(tmp_path / "model")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_damaged_metadata_is_one_line(folder, tmp_path, share):
    shutil.copytree(folder, tmp_path / "model")
    path = tmp_path / "model" / METADATA
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert refusal(tmp_path / "model").startswith("FOLDER")
