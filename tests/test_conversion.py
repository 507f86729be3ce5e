"""What is exported for another runtime says what the model says, or is not there."""

import json

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from PIL import Image

from finetune import conversion
from finetune.conversion import convert, example_images
from finetune.conversion_run import export_model, keras_file_of
from finetune.errors import FinetuneError, GateError, InputError, OutputError
from finetune.formats.opening import open_model
from finetune.recalibration.settings import Settings
from tests.nets import SIZE, functional_net


@pytest.fixture(scope="module")
def model():
    """Values 0..255 in: three sites behind a rescaling."""
    inputs = keras.Input((SIZE, SIZE, 3))
    return keras.Model(inputs, functional_net()(keras.layers.Rescaling(1 / 128, -1)(inputs)), name="small")


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    file = tmp_path_factory.mktemp("saved") / "model.keras"
    model.save(file)
    return file


@pytest.fixture(scope="module")
def exported(saved, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    wanted = {"onnx": folder / "m.onnx", "tflite": folder / "m.tflite", "savedmodel": folder / "m"}
    return {each.kind: each for each in export_model(saved, wanted)}


def test_all_three_say_what_the_model_says(exported, model):
    for each in exported.values():
        assert each.apart < 1e-5
        assert each.changed == 0
        assert each.size > 1000
    images = example_images(SIZE)
    assert np.ptp(np.asarray(model(images)), axis=0).max() > 0.01


def test_the_files_are_what_they_are_called(exported):
    graph = onnx.load(exported["onnx"].path).graph
    assert [value.name for value in graph.input] == ["image"]
    assert (
        tf.lite.Interpreter(model_path=str(exported["tflite"].path)).get_input_details()[0][
            "shape_signature"
        ][0]
        == -1
    )
    assert set(tf.saved_model.load(str(exported["savedmodel"].path)).signatures) >= {"serve"}


def test_where_they_came_from_lies_beside_them(exported, saved):
    record = json.loads(exported["onnx"].path.with_name("m.onnx.provenance.json").read_text())
    assert record["parent"]["file"] == str(saved)
    assert len(record["parent"]["sha256"]) == 64
    assert record["recalibrated_on"] is None


def test_bn_is_folded_away_so_that_recalibration_comes_before(exported):
    with pytest.raises(FinetuneError, match=r"no BN|BatchNormalization|folded"):
        open_model(exported["onnx"].path)


@pytest.mark.parametrize(("quantized", "apart"), [("float16", 1e-2), ("dynamic", 0.2)])
def test_fewer_bits_are_smaller_and_close(model, exported, tmp_path, quantized, apart):
    done = convert(model, "tflite", tmp_path / "m.tflite", quantized)
    assert 0 < done.apart < apart


def test_what_answers_otherwise_is_not_there(model, tmp_path, monkeypatch):
    def wrong(model, part, quantized):
        part.write_bytes(b"something")
        return lambda images: np.full((len(images), 3), 1 / 3)

    monkeypatch.setattr(conversion, "KINDS", {"onnx": wrong})
    with pytest.raises(
        FinetuneError, match=r"differs from small by .* in probability \(at most 0.001\); nothing was"
    ):
        convert(model, "onnx", tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_no_place_is_overwritten(model, tmp_path):
    (tmp_path / "m.onnx").write_text("mine")
    with pytest.raises(OutputError, match="is there already; remove it, or choose another place"):
        convert(model, "onnx", tmp_path / "m.onnx")
    with pytest.raises(OutputError, match="no such folder"):
        convert(model, "onnx", tmp_path / "nowhere" / "m.onnx")
    assert (tmp_path / "m.onnx").read_text() == "mine"


def test_what_cannot_be_exported_is_said(saved, tmp_path):
    with pytest.raises(InputError, match=r"nothing to write: say --onnx FILE"):
        export_model(saved, {})
    with pytest.raises(InputError, match=r"there is nothing; expected a \.keras file"):
        keras_file_of(tmp_path / "nowhere")
    (tmp_path / "m.onnx").write_bytes(b"x")
    with pytest.raises(InputError, match=r"found m\.onnx; a SavedModel is converted by"):
        keras_file_of(tmp_path / "m.onnx")
    with pytest.raises(InputError, match="--quantize: is for --tflite"):
        export_model(saved, {"onnx": tmp_path / "n.onnx"}, quantized="dynamic")


def pictures(folder, count):
    folder.mkdir()
    for place, image in enumerate(np.random.default_rng(1).integers(0, 90, (count, SIZE, SIZE, 3), np.uint8)):
        Image.fromarray(image).save(folder / f"{place:03}.png")
    return folder


def test_recalibrated_first_it_is_another_model_and_the_file_stays(saved, exported, tmp_path):
    before = saved.read_bytes()
    today = pictures(tmp_path / "today", 300)
    # a network that has learnt nothing has no even classes, which the gate would see
    settings = Settings(told={"scale": "none"}, force="a test")
    [done] = export_model(saved, {"savedmodel": tmp_path / "anew"}, images=today, settings=settings)
    images = example_images(SIZE)
    old, new = (tf.saved_model.load(str(path)) for path in (exported["savedmodel"].path, done.path))
    assert np.abs(np.asarray(old.serve(images)) - np.asarray(new.serve(images))).max() > 1e-3
    assert saved.read_bytes() == before
    assert json.loads((tmp_path / "anew.provenance.json").read_text())["recalibrated_on"] == str(today)


def test_one_image_is_refused_by_the_gate_and_nothing_is_written(saved, tmp_path):
    settings = Settings(told={"scale": "none"}, refused=tmp_path / "refused.json")
    with pytest.raises(GateError):
        export_model(
            saved, {"onnx": tmp_path / "m.onnx"}, images=pictures(tmp_path / "one", 1), settings=settings
        )
    assert not (tmp_path / "m.onnx").exists()
