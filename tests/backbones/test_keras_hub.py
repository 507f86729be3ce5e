"""Presets of keras-hub: the live library computes what is expected."""

import json
import subprocess
import sys

import keras
import keras_hub
import numpy as np
import pytest
from pydantic import ValidationError

from finetune.backbones import KerasHub
from finetune.backbones.keras_hub import presets
from finetune.batchnorm.sites import find_sites
from finetune.errors import WeightsError
from tests import hub_presets
from tests.hub_presets import preset_folder, small_resnet, small_vit

SIDE = 32
IMAGENET = {"scale": [0.017, 0.018, 0.019], "offset": [-2.1, -2.0, -1.8]}
FAMILIES = ["resnet", "mobilenet", "densenet", "xception", "vgg", "csp", "hgnet", "vit", "swin"]


def pixels(count=2):
    return np.random.default_rng(1).integers(0, 256, (count, SIDE, SIDE, 3)).astype(np.float32)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_preset_folder_gives_what_keras_hub_computes(family, tmp_path):
    network = getattr(hub_presets, f"small_{family}")()
    folder = preset_folder(tmp_path / "preset", network, **IMAGENET)
    built = KerasHub(name=str(folder)).build(SIDE)
    expected = network(keras_hub.layers.ImageConverter.from_preset(str(folder))(pixels()))
    if isinstance(expected, dict):
        expected = expected[list(expected)[-1]]
    if family == "vit":
        expected = expected[:, 0]
    elif family == "swin":
        expected = np.mean(expected, axis=1)
    got = built.model(built.preprocess(pixels()))
    assert got.shape[-1] == np.shape(expected)[-1]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_a_saved_network_of_its_own_layers_is_read_back_by_a_process_that_did_not_import_them(tmp_path):
    folder = preset_folder(tmp_path / "preset", small_vit(), scale=1 / 255)
    built = KerasHub(name=str(folder)).build(SIDE)
    images = keras.Input((SIDE, SIDE, 3))
    keras.Model(images, built.model(built.preprocess(images))).save(tmp_path / "whole.keras")
    code = (
        "import sys; from pathlib import Path; from finetune.backbones.keras_file import read_model\n"
        "assert 'keras_hub' not in sys.modules\n"
        f"print(read_model(Path({str(tmp_path / 'whole.keras')!r})).count_params())"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(printed) == built.model.count_params()


def test_a_network_of_plain_layers_is_saved_without_keras_hub(tmp_path):
    built = KerasHub(name=str(preset_folder(tmp_path / "preset", small_resnet(), scale=1 / 255))).build(SIDE)
    assert "keras_hub" not in built.model.to_json()


def test_sites_keep_the_momentum_and_epsilon_of_keras_hub(tmp_path):
    built = KerasHub(name=str(preset_folder(tmp_path / "preset", small_resnet(), scale=1 / 255))).build(SIDE)
    sites = find_sites(built.model, np.zeros((1, SIDE, SIDE, 3), np.float32))
    assert {(site.momentum, site.epsilon) for site in sites} == {(0.9, 1e-5)}


def test_weights_are_random_where_none_are_wanted(tmp_path):
    folder = preset_folder(tmp_path / "preset", small_resnet(), scale=1 / 255)
    with_weights, without = (
        KerasHub(name=str(folder), weights=each).build(SIDE) for each in ("pretrained", None)
    )
    assert not np.allclose(with_weights.model.weights[0], without.model.weights[0])
    assert "sha256" in with_weights.origin
    assert without.origin["weights"] == "random"


def test_the_size_of_the_pictures_is_that_of_the_converter(tmp_path):
    folder = preset_folder(tmp_path / "preset", small_resnet(), image_size=(48, 48), scale=1 / 255)
    assert KerasHub(name=str(folder)).default_image_size == 48


def test_every_named_preset_is_one_of_the_installed_keras_hub():
    families = {about["family"] for about in presets().values()}
    known = {name for family in families for name in getattr(keras_hub.models, f"{family}Backbone").presets}
    assert set(presets()) <= known
    assert KerasHub(name="efficientnet_b1_ra4_e3600_r240_imagenet").default_image_size == 240
    assert len(presets()) > 70


def test_an_unknown_preset_is_answered_with_the_nearest():
    with pytest.raises(
        ValidationError, match="unknown keras_hub backbone 'resnet_50'; did you mean 'resnet_50_imagenet'"
    ):
        KerasHub(name="resnet_50")


def test_a_preset_without_a_network(monkeypatch, tmp_path):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        KerasHub(name="resnet_18_imagenet").build(SIDE)
    message = str(caught.value)
    assert message.startswith("keras-hub's preset resnet_18_imagenet could not be fetched (")
    assert message.endswith(
        "run: python -c 'import keras_hub; keras_hub.models.ImageClassifier.from_preset"
        '("resnet_18_imagenet").save_to_preset("resnet_18_imagenet")\' '
        "and give the folder as `name: ./resnet_18_imagenet`"
    )


def test_a_folder_without_a_converter_is_refused_unless_the_recipe_says_the_scale(tmp_path):
    folder = preset_folder(tmp_path / "preset", small_resnet())
    with pytest.raises(WeightsError, match=r"holds no image converter.*or set backbone.scale"):
        KerasHub(name=str(folder)).build(SIDE)
    built = KerasHub(name=str(folder), scale="0..1").build(SIDE)
    np.testing.assert_allclose(built.preprocess(pixels()), pixels() / 255, rtol=1e-6)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            lambda folder: (folder / "config.json").unlink(),
            "holds no config.json; expected a folder that keras-hub's",
        ),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: damaged"),
        (
            lambda folder: (folder / "model.weights.h5").unlink(),
            "holds no model.weights.h5; save it with its weights",
        ),
        (
            lambda folder: (folder / "model.weights.h5").write_bytes(b"x" * 100),
            "keras-hub cannot build it for images of 32 px",
        ),
        (
            lambda folder: (folder / "config.json").write_text(
                json.dumps({"class_name": "Nothing", "config": {}})
            ),
            "keras-hub cannot build it for images of 32 px",
        ),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line(damage, said, tmp_path):
    folder = preset_folder(tmp_path / "preset", small_resnet(), scale=1 / 255)
    damage(folder)
    with pytest.raises(WeightsError) as caught:
        KerasHub(name=str(folder)).build(SIDE)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_keras_hub_missing_is_said(monkeypatch, tmp_path):
    folder = preset_folder(tmp_path / "preset", small_resnet(), scale=1 / 255)
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(WeightsError, match=r"pip install 'finetune\[hub\]'"):
        KerasHub(name=str(folder)).build(SIDE)
