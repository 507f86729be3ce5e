"""Backbones that a function builds."""

import sys

import keras
import numpy as np
import pytest
from pydantic import ValidationError

from finetune.backbones import Function
from finetune.errors import WeightsError

NETS = """
import keras

def sized(image_size):
    image = keras.Input((image_size, image_size, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(image))
    return keras.Model(image, keras.layers.BatchNormalization()(keras.layers.Conv2D(2, 3)(x)))

def open_sized():
    image = keras.Input((None, None, 3))
    return keras.Model(image, keras.layers.Conv2D(4, 3)(image))

def grey(): return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(1, 1)])
def nothing(): return None
def failing(): raise RuntimeError("no weights today")
NUMBER = 3
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "my_nets.py").write_text(NETS)
    (tmp_path / "broken_nets.py").write_text("import not_installed_at_all")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in ("my_nets", "broken_nets"):
        sys.modules.pop(name, None)


def test_a_function_of_this_folder_builds_the_network():
    built = Function(name="my_nets:sized", scale="0..1").build(8)
    assert built.model.output_shape == (None, 4, 4, 2)
    images = np.full((1, 8, 8, 3), 255, np.float32)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(built.preprocess(images)), images / 255)
    assert built.origin == {"source": "function", "name": "my_nets:sized", "scale": "0..1"}


def test_a_function_without_a_parameter_is_called_without():
    assert Function(name="my_nets:open_sized").build(8).model.output_shape == (None, None, None, 4)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "my_nets:other",
            "my_nets:other: other is not there; expected a function that returns a Keras model",
        ),
        ("my_nets:NUMBER", "my_nets:NUMBER: NUMBER is not a function"),
        ("my_nets:failing", "my_nets:failing raised RuntimeError: no weights today"),
        ("my_nets:nothing", "my_nets:nothing returned NoneType; expected a built Keras model with one input"),
        ("my_nets:grey", "returned a model that takes (None, 8, 8, 1); expected (batch, 8, 8, 3)"),
        ("no_such_module:net", "no_such_module cannot be imported from"),
        ("broken_nets:net", "ModuleNotFoundError: No module named 'not_installed_at_all'"),
    ],
)
def test_what_does_not_build_is_one_line(name, said):
    with pytest.raises(WeightsError) as caught:
        Function(name=name).build(8)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["my_nets", "my_nets.sized", "my_nets:", "os:system('x')", ""])
def test_a_name_is_module_colon_function(name):
    with pytest.raises(ValidationError):
        Function(name=name)
