"""The table of keras.applications against Keras itself, and weights from a file."""

import inspect
import sys

import keras
import numpy as np
import pytest
from pydantic import ValidationError

from finetune.backbones import KerasApplications
from finetune.backbones.keras_applications import ARCHITECTURES
from finetune.backbones.scaling import IMAGENET_MEAN, scaling
from finetune.errors import WeightsError


def module_of(name):
    return sys.modules[getattr(keras.applications, name).__module__]


def test_every_architecture_is_listed():
    constructors = {name for name, member in vars(keras.applications).items() if inspect.isfunction(member)}
    assert set(KerasApplications.names()) == constructors
    assert len(KerasApplications.names()) == 40


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_pixels_are_scaled_as_the_architecture_says(name):
    pixels = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3)).astype(np.float32)
    expected = module_of(name).preprocess_input(pixels.copy())
    np.testing.assert_allclose(scaling(ARCHITECTURES[name].scale)(pixels), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("ResNet50", 224),
        ("Xception", 299),
        ("NASNetLarge", 331),
        ("EfficientNetB3", 300),
        ("EfficientNetV2S", 384),
    ],
)
def test_the_default_size_is_the_one_of_the_weights(name, size):
    assert KerasApplications(name=name).default_image_size == size


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(
        ValidationError, match=r"unknown keras_applications backbone 'resnet50v3'; did you mean 'ResNet50V2'"
    ):
        KerasApplications(name="resnet50v3")


def test_a_name_like_no_other_is_answered_with_the_listing():
    with pytest.raises(ValidationError, match="`finetune list backbones` names them"):
        KerasApplications(name="zzzzzz")


def test_images_may_be_too_small():
    with pytest.raises(WeightsError) as caught:
        KerasApplications(name="InceptionV3", weights=None).build(74)
    assert str(caught.value) == "InceptionV3 needs images of at least 75 px, got 74; set data.image_size"


def test_published_weights_without_a_network(monkeypatch, tmp_path):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        KerasApplications(name="MobileNet").build(32)
    assert str(caught.value).startswith(
        "Keras' ImageNet weights of MobileNet could not be fetched (URL fetch failure"
    )
    assert str(caught.value).endswith(
        "where there is a network, run: python -c 'import keras; keras.applications.MobileNet(include_top=False)"
        '.save_weights("MobileNet.weights.h5")\' and give the file as `weights:`'
    )


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """EfficientNetB0 as Keras builds it for `weights="imagenet"`, with a file in place of the download."""
    path = str(tmp_path_factory.mktemp("published") / "efficientnet.weights.h5")
    source = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(32, 32, 3))
    normalization = source.get_layer(index=2)
    normalization.set_weights([np.float32(IMAGENET_MEAN), np.float32([0.229, 0.224, 0.225]), np.int64(0)])
    source.save_weights(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keras.src.applications.efficientnet.file_utils.get_file", lambda *a, **k: path)
        model = keras.applications.EfficientNetB0(
            include_top=False, weights="imagenet", input_shape=(32, 32, 3)
        )
    return model, path


def test_efficientnet_from_a_file_is_efficientnet_as_published(published):
    model, path = published
    built = KerasApplications(name="EfficientNetB0", weights=path).build(32)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    ours = keras.ops.convert_to_numpy(built.model(built.preprocess(pixels)))
    expected = keras.ops.convert_to_numpy(model(pixels))
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    assert not np.allclose(built.model(pixels), expected, rtol=1e-3)
    assert len(built.origin["sha256"]) == 64
