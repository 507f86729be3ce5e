"""One network written in every format, and the table of what recalibration makes of it; nothing is timed."""

import json
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from finetune.datasets.camera import Shift
from finetune.formats.opening import open_model

SIDE = 28


@pytest.fixture(scope="module")
def scripts():
    """The scripts that are tested, as modules."""
    folder = str(Path(__file__).resolve().parents[2] / "scripts")
    sys.path.insert(0, folder)
    import measure_formats
    import trained_formats

    sys.path.remove(folder)
    return measure_formats, trained_formats


def small_network():
    """Every kind of layer that the networks of the scripts have, two sites in depth, a residual join."""
    keras.utils.set_random_seed(0)
    images = keras.Input((SIDE, SIDE, 3))
    x = layers.Rescaling(1 / 255)(images)
    x = layers.Conv2D(24, 5, strides=2, padding="same", use_bias=False)(x)
    x = layers.Activation("relu")(layers.BatchNormalization(name="site_1")(x))
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    y = layers.ZeroPadding2D(((1, 0), (0, 1)))(x)
    y = layers.Conv2D(24, 2, bias_initializer="random_normal")(y)
    y = layers.Activation("relu")(layers.BatchNormalization(name="site_2")(y))
    pooled = layers.GlobalAveragePooling2D()(layers.Add()([x, y]))
    net = keras.Model(images, layers.Dense(10, name="classes")(pooled))
    random = np.random.default_rng(0)
    for site in (net.get_layer("site_1"), net.get_layer("site_2")):
        site.set_weights([random.uniform(0.5, 1.5, w.shape) for w in site.get_weights()])
    return net


def test_every_format_holds_the_same_network(scripts, tmp_path):
    _, trained_formats = scripts
    net = small_network()
    images = np.random.default_rng(1).uniform(0, 255, (6, SIDE, SIDE, 3)).astype(np.float32)
    wanted = np.asarray(net(images))
    for name, write in trained_formats.FORMATS.items():
        folder = tmp_path / name
        folder.mkdir()
        model = open_model(write(net, folder))
        assert [site.channels for site in model.sites] == [24, 24], name
        fed = images.transpose(0, 3, 1, 2) if name == "ONNX" else images
        (found,) = model.predict({model.inputs[0].name: fed}).values()
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4, err_msg=name)


def trained_head(net, images, classes):
    """A classifier on random features, by least squares: the gate looks at the classes that are predicted."""
    from finetune.batchnorm.measure import measure
    from finetune.batchnorm.sites import find_sites

    measure(net, find_sites(net, images[:1]), lambda: [images])
    features = np.asarray(keras.Model(net.input, net.layers[-2].output)(images))
    known = np.eye(10)[classes]
    solved, *_ = np.linalg.lstsq(np.c_[features, np.ones(len(features))], known, rcond=1e-6)
    net.layers[-1].set_weights([solved[:-1], solved[-1]])
    return net


def test_the_table_says_what_live_keras_says(scripts, monkeypatch, capsys):
    measure_formats, trained_formats = scripts
    monkeypatch.setattr(trained_formats, "SIDE", SIDE)
    numbers = range(2000)
    images = measure_formats.photographs(numbers, None).astype(np.float32)
    net = trained_head(small_network(), images, measure_formats.read_test_images()[1][: len(numbers)])
    monkeypatch.setattr(trained_formats, "trained_network", lambda: net)
    typed = ["--formats", "ONNX", "--images", "96", "--tests", "200"]
    # a small change: features that nobody trained survive no more of it than the gate accepts
    monkeypatch.setitem(measure_formats.CAMERAS, "fog", Shift(kind="contrast", severity=1))
    monkeypatch.setattr(sys, "argv", ["measure_formats.py", *typed, "--json"])
    measure_formats.main()
    printed = capsys.readouterr()
    (row,) = json.loads(printed.out) or pytest.fail(printed.err)
    for method in ("layerwise", "one_pass"):
        assert row["apart"][method] < 1e-3
        assert row["accuracy"][method] == pytest.approx(row["live"][method], abs=0.005)
    assert row["files"] == ["model.onnx"]
    assert 0 < row["bytes_changed"] <= 2 * 2 * 24 * 4
