"""What every backbone owes: it builds without a network, joins a head, and the model reloads in plain Keras."""

import json
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

from finetune.assemble import assemble
from finetune.backbones import (
    BACKBONES,
    Bundled,
    EfficientNetLite,
    Function,
    KerasApplications,
    KerasCV,
    KerasHub,
    Saved,
)
from finetune.heads import Linear
from tests.hub_presets import preset_folder, small_mobilenet, small_resnet
from tests.nets import functional_net

SIDE = 32
NAMES = ("left", "right")
CASES = {
    "bundled": Bundled,
    "efficientnet_lite": EfficientNetLite,
    "keras_cv, plain layers": lambda: KerasCV(name="resnet18", weights=None),
    "keras_cv, reloaded whole": lambda: KerasCV(name="mobilenet_v3_small", weights=None),
    "keras_cv, custom layers": lambda: KerasCV(name="efficientnetv2_b0", weights=None),
    "keras_applications, caffe": lambda: KerasApplications(name="ResNet50", weights=None),
    "keras_applications, -1..1": lambda: KerasApplications(name="MobileNet", weights=None),
    "keras_hub, plain layers": lambda: None,
    "keras_hub, its own layers": lambda: None,
    "function": lambda: Function(name="tests.nets:without_top", scale="-1..1"),
    "saved": lambda: None,
}


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """The component, what it built, the assembled model and its .keras file."""
    folder = tmp_path_factory.mktemp("case")
    component, side = CASES[request.param](), SIDE
    if request.param.startswith("keras_hub"):
        make = small_resnet if "plain" in request.param else small_mobilenet
        component = KerasHub(name=str(preset_folder(folder / "preset", make(), scale=1 / 255)))
    if request.param == "saved":
        functional_net().save(folder / "net.keras")
        component, side = Saved(path=str(folder / "net.keras"), scale="imagenet"), 8
    built = component.build(side)
    model = assemble(built, Linear(), NAMES, side)
    model.save(folder / "model.keras")
    return component, built, model, folder / "model.keras"


def pixels(model):
    side = model.input_shape[1]
    return np.random.default_rng(0).integers(0, 256, (3, side, side, 3)).astype(np.float32)


def config(path):
    with zipfile.ZipFile(path) as archive:
        return archive.read("config.json").decode()


def baked_training(node):
    """Every value of `training=` in a saved graph, but those of dropout, which Keras writes by itself."""
    if isinstance(node, list):
        return [value for child in node for value in baked_training(child)]
    if not isinstance(node, dict):
        return []
    calls = node.get("inbound_nodes", []) if node.get("class_name") != "Dropout" else []
    own = [call["kwargs"]["training"] for call in calls if call["kwargs"].get("training") is not None]
    return own + baked_training(list(node.values()))


def test_every_source_has_a_case():
    assert {type(make()) for make in CASES.values()} - {type(None)} | {KerasHub, Saved} == set(BACKBONES)
    assert len(BACKBONES) == 7


def test_raw_pixels_become_float32_probabilities(case):
    _, _, model, _ = case
    probabilities = keras.ops.convert_to_numpy(model(pixels(model)))
    assert probabilities.shape == (3, 2)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)


def test_the_model_is_preprocessing_then_backbone_then_head(case):
    _, built, model, _ = case
    features = keras.ops.convert_to_numpy(built.model(built.preprocess(pixels(model)))).astype(np.float64)
    pooled = features.mean((1, 2)) if features.ndim == 4 else features
    kernel, bias = model.get_layer("classes").get_weights()
    logits = pooled @ kernel + bias
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(pixels(model))), expected, atol=1e-4)


def test_the_model_reloads_with_equal_outputs(case):
    _, _, model, path = case
    again = keras.models.load_model(path)
    np.testing.assert_allclose(again(pixels(model)), model(pixels(model)), atol=1e-6)


def test_the_file_holds_no_class_of_ours(case):
    _, _, _, path = case
    assert '"finetune' not in config(path)


def test_no_training_flag_is_baked_in(case):
    _, _, _, path = case
    assert baked_training(json.loads(config(path))) == []


def test_a_baked_training_flag_would_be_seen(tmp_path):
    net = functional_net()
    inputs = keras.Input((8, 8, 3))
    keras.Model(inputs, net(inputs, training=False)).save(tmp_path / "baked.keras")
    assert baked_training(json.loads(config(tmp_path / "baked.keras"))) == [False]


def test_the_origin_is_plain_and_names_the_source(case):
    component, built, _, _ = case
    assert built.origin["source"] == component.source
    assert json.loads(json.dumps(built.origin)) == built.origin


def test_the_default_image_size_is_a_side_in_pixels(case):
    component, _, _, _ = case
    assert 8 <= component.default_image_size <= 224


def test_sources_load_without_keras_or_numpy():
    code = "import sys, finetune.backbones, finetune.heads; print({'keras', 'tensorflow', 'numpy'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"
