"""Backbones out of .keras files: where the features are, what the classifier was, what is refused."""

import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from finetune.assemble import assemble
from finetune.backbones import Saved
from finetune.backbones.keras_file import expected_side
from finetune.errors import WeightsError
from finetune.heads import Linear
from tests.nets import functional_net, images


@pytest.fixture(scope="module")
def net():
    return functional_net()


@pytest.fixture(scope="module")
def path(net, tmp_path_factory):
    file = tmp_path_factory.mktemp("saved") / "net.keras"
    net.save(file)
    return str(file)


def refusal(path, side=8, **keys):
    with pytest.raises(WeightsError) as caught:
        Saved(path=str(path), **keys).build(side)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path), "FILE")


def test_features_and_classifier_together_are_the_saved_model(net, path):
    built = Saved(path=path).build(8)
    features = keras.ops.convert_to_numpy(built.model(images(5)))
    logits = features @ built.classifier.kernel + built.classifier.bias
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(net(images(5)), expected, atol=1e-5)


def test_a_model_of_ours_taken_up_again_predicts_the_same(path, tmp_path):
    names = ("a", "b", "c")
    first = assemble(Saved(path=path).build(8), Linear(weights="pretrained"), names, 8)
    first.save(tmp_path / "model.keras")
    again = assemble(
        Saved(path=str(tmp_path / "model.keras")).build(8), Linear(weights="pretrained"), names, 8
    )
    np.testing.assert_allclose(again(images(5)), first(images(5)), atol=1e-6)


def test_a_softmax_layer_of_its_own_is_not_the_classifier(tmp_path):
    inputs = keras.Input((8, 8, 3))
    dense = keras.layers.Dense(4, use_bias=False)
    outputs = keras.layers.Softmax()(dense(keras.layers.GlobalAveragePooling2D()(inputs)))
    keras.Model(inputs, outputs).save(tmp_path / "net.keras")
    built = Saved(path=str(tmp_path / "net.keras")).build(8)
    np.testing.assert_array_equal(built.classifier.kernel, dense.kernel)
    np.testing.assert_array_equal(built.classifier.bias, np.zeros(4))
    assert built.model.output_shape == (None, 3)


def test_features_may_be_taken_at_a_layer(net, path):
    built = Saved(path=path, layer="conv_2").build(8)
    inside = keras.Model(net.input, net.get_layer("conv_2").output)
    np.testing.assert_allclose(built.model(images(2)), inside(images(2)), atol=1e-5)
    assert built.classifier is None
    assert built.origin["layer"] == "conv_2"


def test_a_model_without_a_classifier_gives_its_output(tmp_path):
    inputs = keras.Input((None, None, 3))
    keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs)).save(tmp_path / "net.keras")
    built = Saved(path=str(tmp_path / "net.keras")).build(9)
    assert built.model.output_shape == (None, None, None, 4)
    assert built.classifier is None


@pytest.mark.parametrize(
    ("names", "known"), [(["a", "b", "c"], ("a", "b", "c")), (["a", "b"], ()), ("abc", ())]
)
def test_class_names_come_from_the_provenance_beside_the_file(net, tmp_path, names, known):
    net.save(tmp_path / "model.keras")
    (tmp_path / "provenance.json").write_text(json.dumps({"data": {"class_names": names}}))
    assert Saved(path=str(tmp_path / "model.keras")).build(8).classifier.class_names == known


def test_without_provenance_the_classes_have_no_names(path):
    assert Saved(path=path).build(8).classifier.class_names == ()


def test_the_default_size_is_the_one_in_the_file(path):
    assert Saved(path=path).default_image_size == 8


def test_an_open_size_defaults_to_224(tmp_path):
    keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(1, 1)]).save(tmp_path / "net.keras")
    assert Saved(path=str(tmp_path / "net.keras")).default_image_size == 224


def test_an_unknown_layer(net, path):
    last = ", ".join(layer.name for layer in net.layers[-5:])
    assert refusal(path, layer="conv_9").startswith(
        f"FILE: no top-level layer 'conv_9'; its last layers are {last}"
    )


def test_another_image_size(path):
    assert refusal(path, side=16) == (
        "FILE: takes images of 8 x 8 px, the recipe gives 16; set data.image_size: 8"
    )


def test_a_missing_file(tmp_path):
    missing = "FILE: no such file; expected a model that Keras saved as .keras"
    assert refusal(tmp_path / "none.keras") == missing
    with pytest.raises(WeightsError, match="no such file"):
        _ = Saved(path=str(tmp_path / "none.keras")).default_image_size


def test_a_damaged_file(path, tmp_path):
    whole = Path(path).read_bytes()
    (tmp_path / "half.keras").write_bytes(whole[: len(whole) // 2])
    found = refusal(tmp_path / "half.keras")
    assert found == "FILE: damaged or not a .keras file; save the model again with model.save"


def test_a_lambda_is_never_run(tmp_path):
    keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Lambda(lambda x: x * 2)]).save(
        tmp_path / "net.keras"
    )
    assert refusal(tmp_path / "net.keras") == (
        "FILE: holds Python code (a Lambda layer), which is never run from a file; "
        "rebuild that layer from Keras operations and save the model again"
    )


def test_a_class_that_keras_does_not_know(tmp_path):
    class Mine(keras.layers.Layer):
        def call(self, inputs):
            return inputs

    keras.Sequential([keras.Input((8, 8, 3)), Mine()]).save(tmp_path / "net.keras")
    assert refusal(tmp_path / "net.keras").startswith("FILE: Keras cannot load it: ")


@keras.saving.register_keras_serializable("tests")
class OneDense(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)


def test_a_subclassed_model(tmp_path):
    model = OneDense()
    model(images(1))
    model.save(tmp_path / "net.keras")
    assert refusal(tmp_path / "net.keras") == (
        "FILE: a subclassed model has no layers to take features from; save a functional one"
    )


def test_two_inputs(tmp_path):
    one, two = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    keras.Model([one, two], keras.layers.Add()([one, two])).save(tmp_path / "net.keras")
    found = refusal(tmp_path / "net.keras")
    assert found == "FILE: has 2 inputs and 1 outputs; expected one image in, one tensor out"


def test_an_input_that_is_no_image(tmp_path):
    keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)]).save(tmp_path / "net.keras")
    found = refusal(tmp_path / "net.keras")
    assert found == "FILE: takes (None, 8); expected RGB images, (batch, height, width, 3)"


@pytest.mark.parametrize("config", ["[" * 100_000 + "]" * 100_000, '{"class_name": "InputLayer"}', "{"])
def test_a_configuration_that_is_none_is_refused(config, tmp_path):
    """Nested without end, or cut off; found by scripts/fuzz.py."""
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as archive:
        archive.writestr("config.json", config)
    with pytest.raises(WeightsError, match=r"damaged or not a \.keras file"):
        expected_side(tmp_path / "net.keras")
