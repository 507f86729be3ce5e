"""The table of keras-cv, its names, and weights from a file, a folder or a server."""

import keras
import numpy as np
import pytest
from keras_cv.src.models.backbones.resnet_v1.resnet_v1_backbone_presets import backbone_presets
from pydantic import TypeAdapter, ValidationError

from finetune.backbones import AnyBackbone, KerasCV
from finetune.backbones.keras_cv import architectures, keras_cv_network
from finetune.errors import WeightsError

SMALL = "mobilenet_v3_small"
# one architecture a family, with as few blocks as it can have
SHALLOW = {
    SMALL: {},
    "resnet18": {"stackwise_blocks": [1, 1, 1, 1]},
    "resnet18_v2": {},
    "densenet121": {"stackwise_num_repeats": [1, 1, 1, 1]},
    "efficientnetv1_b0": {"depth_coefficient": 0.1},
    "efficientnetv2_b0": {"depth_coefficient": 0.1},
    "efficientnetlite_b0": {"depth_coefficient": 0.1},
    "csp_darknet_tiny": {"stackwise_depth": [1, 1, 1, 1]},
    "mit_b0": {"depths": [1, 1, 1, 1]},
}


@pytest.fixture(scope="module")
def small():
    return KerasCV(name=SMALL, weights=None).build(32).model


def test_all_sixty_presets_of_keras_cv_can_be_written():
    random = [KerasCV(name=name, weights=None) for name in KerasCV.names()]
    published = [KerasCV(name=name) for name, entry in architectures().items() if entry["imagenet"]]
    assert (len(random), len(published)) == (46, 14)


def test_the_names_are_those_of_keras_cv():
    assert {name for name in KerasCV.names() if architectures()[name]["class"] == "ResNetBackbone"} == {
        name.removesuffix("_imagenet") for name in backbone_presets
    }


# counted in keras.applications (MobileNetV3), EfficientNet-Lite's release and keras-cv's metadata: weights, no top
@pytest.mark.parametrize(
    ("name", "parameters"),
    [("mobilenet_v3_small", 939_120), ("efficientnetlite_b0", 3_413_024), ("resnet18_v2", 11_183_488)],
)
def test_built_networks_have_the_published_number_of_parameters(name, parameters):
    model = KerasCV(name=name, weights=None).build(64).model
    assert sum(int(np.prod(v.shape)) for v in model.weights if "seed_generator" not in v.path) == parameters


def test_a_network_of_plain_layers_is_saved_without_keras_cv():
    model = KerasCV(name="resnet18", weights=None).build(32).model
    assert "keras_cv" not in model.to_json()


@pytest.mark.parametrize("name", SHALLOW)
def test_every_family_can_be_read_back(name):
    entry = architectures()[name]
    model = keras_cv_network(entry["class"], entry["arguments"] | SHALLOW[name], 64, "backbone")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
    assert [v.shape for v in again.weights] == [v.shape for v in model.weights]


def test_no_family_was_left_out():
    families = {architectures()[name]["class"] for name in SHALLOW}
    assert families == {entry["class"] for entry in architectures().values()}
    assert len(families) == 9


def test_raw_pixels_go_in(small):
    rescaling = next(layer for layer in small.layers if isinstance(layer, keras.layers.Rescaling))
    assert (rescaling.scale, rescaling.offset) == (1 / 255, 0)
    assert small.layers.index(rescaling) == 1


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(
        ValidationError, match=r"unknown keras_cv backbone 'resnet51'; did you mean 'resnet50'"
    ):
        KerasCV(name="resnet51")


def test_a_preset_name_is_answered_with_its_two_keys():
    with pytest.raises(ValidationError, match="write name: resnet50 and weights: imagenet"):
        KerasCV(name="resnet50_imagenet")


def test_weights_that_nobody_published_are_refused_in_the_recipe():
    with pytest.raises(
        ValidationError, match="keras-cv has no ImageNet weights of resnet18; give a weights file, null"
    ):
        TypeAdapter(AnyBackbone).validate_python({"source": "keras_cv", "name": "resnet18"})


def test_weights_come_from_a_file_or_a_preset_folder(small, tmp_path):
    small.save_weights(tmp_path / "model.weights.h5")
    for given in (tmp_path / "model.weights.h5", tmp_path):
        built = KerasCV(name=SMALL, weights=str(given)).build(32)
        for ours, theirs in zip(built.model.get_weights(), small.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert built.origin["file"] == "model.weights.h5"


def test_published_weights_without_a_network(monkeypatch, tmp_path):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        KerasCV(name=SMALL).build(32)
    assert str(caught.value) == (
        "keras-cv's ImageNet weights of mobilenet_v3_small could not be fetched (ProxyError); where there is a "
        "network, run: python -c 'import keras_cv; keras_cv.models.MobileNetV3Backbone.from_preset("
        '"mobilenet_v3_small_imagenet").save_weights("mobilenet_v3_small_imagenet.weights.h5")\' '
        "and give the file as `weights:`"
    )


def test_a_size_that_the_network_cannot_take_is_named():
    with pytest.raises(WeightsError) as caught:
        KerasCV(name="csp_darknet_tiny", weights=None).build(33)
    assert (
        str(caught.value)
        == "keras-cv cannot build csp_darknet_tiny for images of 33 px; try a multiple of 32"
    )
