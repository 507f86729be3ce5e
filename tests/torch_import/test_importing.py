"""Imported networks compute what torchvision and timm compute (scripts/make_torch_reference.py), every tensor taken."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from finetune.batchnorm.sites import find_sites
from finetune.errors import OutputError, WeightsError
from finetune.import_run import import_weights
from finetune.recipe_file import load_text
from finetune.torch_import import import_state_dict
from tests.torch_import.drawn import images, state_dict

REFERENCE = Path(__file__).parent / "reference.npz"
SITES = {
    "torchvision resnet18": 20,
    "torchvision resnet50": 53,
    "torchvision wide_resnet50_2": 53,
    "torchvision mobilenet_v2": 52,
    "timm resnet50": 53,
    "timm mobilenetv2_050": 52,
}


def drawn(name):
    with np.load(REFERENCE) as file:
        return state_dict(json.loads(str(file[f"{name}/shapes"])))


def log_probabilities(name, side):
    with np.load(REFERENCE) as file:
        return file[f"{name}/{side}"]


@pytest.mark.parametrize("name", SITES)
def test_it_computes_what_pytorch_computes_at_an_even_and_an_odd_size(name):
    tensors = drawn(name)
    for side in (64, 75) if "wide" not in name else (75,):
        model = import_state_dict(tensors, side, "imported").model
        given = np.log(np.asarray(model(images(side), training=False), np.float64))
        np.testing.assert_allclose(given, log_probabilities(name, side), atol=2e-4)
        assert np.ptp(given) > 1
    assert len(find_sites(model, images(side)[:1])) == SITES[name]


@pytest.fixture(scope="module")
def tensors():
    return drawn("torchvision resnet18")


def test_sites_have_the_momentum_and_epsilon_of_pytorch_in_keras_convention(tensors):
    model = import_state_dict(tensors, 64, "imported").model
    sites = find_sites(model, images(64)[:1])
    assert {(site.momentum, site.epsilon) for site in sites} == {(0.9, 1e-5)}
    first = model.get_layer("bn1")
    np.testing.assert_array_equal(first.moving_variance, tensors["bn1.running_var"])
    assert all(isinstance(layer, keras.layers.Layer) for layer in model.layers)
    assert type(model) is keras.Model or type(model).__name__ == "Functional"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layer1.0.se.fc1.weight": np.ones((2, 2))}, r"does not: layer1.0.se.fc1.weight; it is of another"),
        ({"layer2.0.bn2.running_mean": None}, r"has no layer2.0.bn2.running_mean, which its layout needs"),
        ({"layer2.0.bn2.bias": np.ones(7, np.float32)}, r"^layer2_0_bn2: "),
        (
            {"layer2.0.conv2.weight": np.ones((128, 4, 3, 3), np.float32)},
            r"grouped convolutions \(ResNeXt, RegNet\)",
        ),
        ({"fc.weight": None, "fc.bias": None}, r"has no fc.weight"),
    ],
)
def test_what_does_not_fit_is_named(tensors, change, words):
    changed = {key: value for key, value in (tensors | change).items() if value is not None}
    with pytest.raises(WeightsError, match=words):
        import_state_dict(changed, 64, "imported")


def test_another_kind_of_network_is_told_from_its_first_names():
    with pytest.raises(
        WeightsError, match=r"none of the known layouts \(ResNet .*\); it begins with cls_token, "
    ):
        import_state_dict({"cls_token": np.ones(1), "pos_embed": np.ones(1)}, 64, "vit")


@pytest.fixture
def file(tmp_path, tensors, monkeypatch):
    """A state dict file; reading those is tested beside its reader."""
    path = tmp_path / "resnet18-f37072fd.pth"
    path.write_bytes(b"a state dict")
    monkeypatch.setattr("finetune.import_run.read_state_dict", lambda _: tensors)
    return path


def test_the_file_is_a_backbone_that_a_recipe_names(file, tmp_path):
    done = import_weights(file, tmp_path / "resnet18.keras", 64)
    assert (done.sites, done.classes, done.layout) == (20, 1000, "ResNet (torchvision, timm)")
    recipe = load_text(
        f"""
backbone: {{source: saved, path: {done.path}, scale: imagenet}}
data: {{source: tfds, name: fashion_shift}}
batchnorm: {{policy: freeze}}
stages: [{{train: head, epochs: 1, learning_rate: 0.1}}]
"""
    )
    built = recipe.backbone.build(64)
    assert built.model.output_shape == (None, 512)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(built.preprocess(pixels), (pixels / 255 - mean) / deviation, atol=1e-5)
    record = json.loads((tmp_path / "resnet18.keras.provenance.json").read_text())
    assert record["source"] == file.name
    assert len(record["sha256"]) == 64


def test_no_file_is_overwritten_and_none_is_left_half_written(file, tmp_path, monkeypatch):
    (tmp_path / "mine.keras").write_text("mine")
    with pytest.raises(OutputError, match=r"is there already; remove it, or choose another name with --out"):
        import_weights(file, tmp_path / "mine.keras")
    with pytest.raises(OutputError, match=r"expected a name that ends in \.keras"):
        import_weights(file, tmp_path / "mine.h5")

    def full(model, path):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", full)
    with pytest.raises(OutputError, match="cannot be written"):
        import_weights(file, tmp_path / "new.keras", 64)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["mine.keras", file.name]
