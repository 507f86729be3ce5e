"""Scaled pixels are those of keras.applications, and survive a save."""

import keras
import numpy as np
import pytest
from keras.applications import imagenet_utils

from finetune.backbones.scaling import scaling

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(np.float32)
ORACLES = {
    "none": lambda x: x,
    "0..1": lambda x: x / 255,
    "-1..1": lambda x: imagenet_utils.preprocess_input(x.copy(), mode="tf"),
    "imagenet": lambda x: imagenet_utils.preprocess_input(x.copy(), mode="torch"),
    "caffe": lambda x: imagenet_utils.preprocess_input(x.copy(), mode="caffe"),
}


def saved_and_loaded(scale, path):
    inputs = keras.Input((4, 4, 3))
    keras.Model(inputs, keras.layers.Flatten()(scaling(scale)(inputs))).save(path)
    return keras.models.load_model(path)


@pytest.mark.parametrize("scale", ORACLES)
def test_pixels_are_scaled_as_keras_scales_them(scale):
    np.testing.assert_allclose(scaling(scale)(PIXELS), ORACLES[scale](PIXELS), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("scale", ORACLES)
def test_the_scaling_is_part_of_a_saved_model(scale, tmp_path):
    model = saved_and_loaded(scale, tmp_path / "scaled.keras")
    expected = ORACLES[scale](PIXELS).reshape(2, -1)
    np.testing.assert_allclose(model(PIXELS), expected, rtol=1e-5, atol=1e-4)


def test_half_precision_still_tells_neighbouring_pixels_apart():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        scaled = scaling("imagenet")(np.float32([[[[250.4] * 3, [250.6] * 3]]]))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert scaled.dtype == "float32"
    assert float(scaled[0, 0, 0, 0]) < float(scaled[0, 0, 1, 0])
