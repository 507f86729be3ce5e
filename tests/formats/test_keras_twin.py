"""A Keras file whose code is not here is measured through its exported twin, and copied with nothing else changed."""

import json
import zipfile

import keras
import numpy as np
import pytest
from keras import layers

from finetune.errors import InputError, ModelError
from finetune.formats.keras_loading import CodeMissingError
from finetune.formats.keras_twin import KerasTwin
from finetune.formats.opening import open_model
from finetune.recalibration.settings import Settings
from finetune.recalibration.subject import open_subject
from tests.formats.recalibrating import recalibrate, recalibrated
from tests.formats.test_keras_file import others
from tests.nets import CLASSES, SIZE, Block, disturbed, photographs

Gone = type("Gone", (Block,), {"__module__": "gone"})
"""A layer that a reader of the file does not have."""


def gone_net():
    """Two blocks of a class that is not here, each with a site."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = Gone(5, name="block_2")(Gone(4, name="block_1")(inputs))
    outputs = layers.Dense(CLASSES, activation="softmax", name="out")(layers.GlobalAveragePooling2D()(x))
    return disturbed(keras.Model(inputs, outputs))


def deployed(net, folder, ending=".keras"):
    """The file with its export beside it, as `finetune run` leaves them."""
    folder.mkdir(exist_ok=True)
    net.save(folder / f"model{ending}")
    net.export(folder / "saved_model" / "1", verbose=False)
    return folder / f"model{ending}"


def exported(net, folder):
    net.export(folder, verbose=False)
    return folder


@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_the_copy_is_the_live_model_measured_anew_and_differs_in_statistics_alone(ending, tmp_path):
    path, images = deployed(gone_net(), tmp_path / "run", ending), photographs()
    before = path.read_bytes()
    model = open_model(path, twin=tmp_path / "run" / "saved_model" / "1")
    assert isinstance(model, KerasTwin)
    assert [(site.path, site.channels) for site in model.sites] == [
        ("block_1", 4),
        ("block_2", 5),
    ]
    recalibrate(model, images)
    copy = tmp_path / "new" / path.name
    changed = model.write(copy)

    again = keras.saving.load_model(copy, compile=False, custom_objects={"Gone": Gone})
    live = recalibrated(gone_net(), images)
    for ours, theirs in zip(again.weights, live.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    (in_force,) = model.predict({model.inputs[0].name: images}).values()
    np.testing.assert_allclose(again.predict_on_batch(images), in_force, atol=1e-6)
    after = copy.read_bytes()
    assert path.read_bytes() == before
    assert others(path) == others(copy)
    assert changed > sum(a != b for a, b in zip(before, after, strict=True)) > 0


def test_the_twin_goes_along_so_that_the_copy_can_be_measured_again(tmp_path):
    first, images = deployed(gone_net(), tmp_path / "run"), photographs()
    settings = Settings(told={"scale": "none"})
    model = open_subject(str(first), settings).model
    recalibrate(model, images)
    model.write(tmp_path / "2" / "model.keras")
    second = open_subject(str(tmp_path / "2" / "model.keras"), settings).model
    recalibrate(second, images)
    assert second.write(tmp_path / "3" / "model.keras") == 0
    assert (tmp_path / "3" / "model.keras").read_bytes() == (tmp_path / "2" / "model.keras").read_bytes()


def test_a_lambda_is_not_run_where_a_twin_knows_what_it_does(tmp_path):
    stack = [keras.Input((4,)), layers.Lambda(lambda x: x * 2), layers.BatchNormalization(), layers.Dense(2)]
    path = deployed(disturbed(keras.Sequential([*stack, layers.BatchNormalization()])), tmp_path)
    model = open_model(path, twin=tmp_path / "saved_model" / "1")
    batch = np.random.default_rng(0).normal(3, 1, (20, 4)).astype(np.float32)
    recalibrate(model, batch)
    model.write(tmp_path / "new" / "model.keras")
    again = open_model(tmp_path / "new" / "model.keras", trust=True)
    np.testing.assert_allclose(again.sites[0].statistics.mean, 2 * batch.mean(0), rtol=1e-5)


def test_a_file_that_keras_can_load_needs_no_twin(tmp_path):
    net = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.BatchNormalization()])
    net.save(tmp_path / "model.keras")
    model = open_model(tmp_path / "model.keras", twin=tmp_path / "nowhere")
    assert not isinstance(model, KerasTwin)


def refused(path, twin):
    with pytest.raises(ModelError) as refusal:
        open_model(path, twin=twin)
    (line,) = refusal.value.problems
    assert line.startswith(str(path))
    return line


def test_without_a_twin_it_says_that_one_would_do(tmp_path):
    gone_net().save(tmp_path / "model.keras")
    with pytest.raises(CodeMissingError, match=r"code that is not here.*export.*--twin"):
        open_subject(str(tmp_path / "model.keras"), Settings())


def test_a_twin_with_other_weights_is_refused(tmp_path):
    path = deployed(gone_net(), tmp_path / "run")
    other = gone_net()
    other.layers[-1].bias.assign_add([0.0, 1e-3, 0.0])
    assert "has other values in out/bias; give the export of this very file" in refused(
        path, exported(other, tmp_path / "other")
    )


def test_statistics_that_are_there_twice_are_refused(tmp_path):
    """A fresh site: its variance is 1, as its gamma; and two sites with one pair of values."""
    net = gone_net()
    layer = net.get_layer("block_1").bn
    layer.gamma.assign(layer.moving_variance)
    path = deployed(net, tmp_path / "run")
    said = refused(path, tmp_path / "run" / "saved_model" / "1")
    assert "the statistics of block_1 are in the file more than once" in said


def test_a_pair_in_one_layer_goes_before_equal_values_elsewhere(tmp_path):
    net = gone_net()
    net.get_layer("block_1").conv.bias.assign(net.get_layer("block_1").bn.moving_mean)
    path = deployed(net, tmp_path / "run")
    model, images = open_model(path, twin=tmp_path / "run" / "saved_model" / "1"), photographs()
    bias = np.asarray(net.get_layer("block_1").conv.bias)
    recalibrate(model, images)
    model.write(tmp_path / "new" / "model.keras")
    again = keras.saving.load_model(tmp_path / "new" / "model.keras", custom_objects={"Gone": Gone})
    np.testing.assert_array_equal(again.get_layer("block_1").conv.bias, bias)
    assert not np.array_equal(again.get_layer("block_1").bn.moving_mean, bias)


def test_what_is_no_keras_file_has_no_twin(tmp_path):
    deployed(gone_net(), tmp_path / "run")
    with pytest.raises(InputError, match=r"only a \.keras or \.h5 file is measured through one"):
        open_subject(str(tmp_path / "run" / "saved_model" / "1"), Settings(twin=tmp_path))


def test_a_damaged_file_and_a_copy_that_reads_otherwise_leave_nothing_behind(tmp_path, monkeypatch):
    path = deployed(gone_net(), tmp_path / "run")
    model = open_model(path, twin=tmp_path / "run" / "saved_model" / "1")
    recalibrate(model, photographs())
    monkeypatch.setattr("finetune.formats.keras_twin.patched", lambda weights, *rest: weights)
    with pytest.raises(ModelError, match="the copy holds other values"):
        model.write(tmp_path / "new" / "model.keras")
    assert [each.name for each in tmp_path.iterdir()] == ["run"]


def test_the_code_stays_absent_in_these_files(tmp_path):
    """What all tests here rest on: the archive names a module that nobody can import."""
    path = deployed(gone_net(), tmp_path)
    with zipfile.ZipFile(path) as archive:
        named = json.loads(archive.read("config.json"))["config"]["layers"][1]
    assert named["module"] == "gone"
