"""Weights files that fit are loaded whole; all others are refused with a reason."""

import h5py
import keras
import numpy as np
import pytest

from finetune.backbones.weights_file import load_weights
from finetune.errors import WeightsError
from tests.nets import custom_layer_net, functional_net


@pytest.fixture
def path(tmp_path):
    functional_net(seed=1).save_weights(tmp_path / "net.weights.h5")
    return tmp_path / "net.weights.h5"


def refusal(model, path):
    with pytest.raises(WeightsError) as caught:
        load_weights(model, path, "the net")
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path), "FILE")


def test_every_weight_is_the_one_in_the_file(path):
    model = functional_net(seed=2)
    load_weights(model, path, "the net")
    for ours, theirs in zip(model.get_weights(), functional_net(seed=1).get_weights(), strict=True):
        if ours.dtype == np.float32:
            np.testing.assert_array_equal(ours, theirs)


def test_a_legacy_h5_file_is_read_too(tmp_path):
    functional_net(seed=1).save(tmp_path / "net.h5")
    model = functional_net(seed=2)
    load_weights(model, tmp_path / "net.h5", "the net")
    np.testing.assert_array_equal(
        model.get_layer("out").kernel, functional_net(seed=1).get_layer("out").kernel
    )


def test_a_missing_file(tmp_path):
    found = refusal(functional_net(), tmp_path / "none.weights.h5")
    assert found == "FILE: no such file; expected weights of the net (.weights.h5 or .h5)"


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "net.npz").write_bytes(b"")
    found = refusal(functional_net(), tmp_path / "net.npz")
    assert found == "FILE: not an .h5 file; expected weights of the net (.weights.h5 or .h5)"


def test_a_damaged_file(path):
    path.write_bytes(path.read_bytes()[:200])
    found = refusal(functional_net(), path)
    assert found.startswith("FILE: damaged or not HDF5 (")
    assert found.endswith("); fetch the file again")


def test_weights_of_another_architecture(path):
    assert refusal(custom_layer_net(), path).startswith("FILE: not weights of the net: ")


def test_weights_that_keras_would_skip_with_a_warning(tmp_path):
    class Bag(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="bag")
            self.rows = [[keras.layers.Dense(2)]]

        def call(self, inputs):
            return self.rows[0][0](inputs)

    model = keras.Sequential([keras.Input((3,)), Bag()])
    path = tmp_path / "bag.weights.h5"
    model.save_weights(path)
    with h5py.File(path, "a") as file:
        held = []
        file.visit(held.append)
        del file[next(name for name in held if name.endswith("rows/container"))]
    with pytest.warns(UserWarning, match="Skipping nested container"):
        model.load_weights(path)
    assert "holds no values for 2 of the 2 weights of the net" in refusal(model, path)
