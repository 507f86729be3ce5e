"""Pictures become what a model reads; what nobody said is asked for."""

import numpy as np
import pytest
from pydantic import ValidationError

from finetune.errors import InputError, ModelError
from finetune.formats.deployed import InputSpec
from finetune.recalibration.preprocessing import WORDS, Preprocessing
from finetune.recalibration.reading_inputs import wanted_preprocessing

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (2, 4, 5, 3), np.uint8)

PLAIN = {
    "none": lambda x: x,
    "unit": lambda x: x / 255,
    "-1..1": lambda x: x / 127.5 - 1,
    "imagenet": lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    "caffe": lambda x: (x - [123.68, 116.779, 103.939])[..., ::-1],
}


def spec(shape, dtype="float32"):
    return InputSpec("images", shape, dtype)


def wanted(shape, dtype="float32", provenance=None, **told):
    return wanted_preprocessing(spec(shape, dtype), provenance or {}, told).preprocessing


@pytest.mark.parametrize("scale", WORDS)
def test_every_scale_is_the_arithmetic_that_its_name_says(scale):
    found = Preprocessing(image_size=4, scale=scale).apply(IMAGES)
    np.testing.assert_allclose(found, PLAIN[scale](IMAGES.astype(float)), rtol=1e-5, atol=1e-4)
    assert found.dtype == np.float32


@pytest.mark.parametrize("scale", WORDS)
def test_colours_keep_their_own_mean_in_any_order_and_layout(scale):
    rgb = Preprocessing(image_size=4, scale=scale, order="rgb").apply(IMAGES)
    bgr = Preprocessing(image_size=4, scale=scale, order="bgr", layout="nchw").apply(IMAGES)
    np.testing.assert_array_equal(bgr, np.moveaxis(rgb[..., ::-1], -1, 1))


def test_grey_is_one_channel_as_pillow_makes_it():
    from PIL import Image

    found = Preprocessing(image_size=4, order="grey").apply(IMAGES)
    expected = [np.asarray(Image.fromarray(image).convert("L"), float) for image in IMAGES]
    np.testing.assert_allclose(found[..., 0], expected, atol=1.0)
    whole = Preprocessing(image_size=4, order="grey", dtype="uint8").apply(IMAGES)
    np.testing.assert_array_equal(whole, np.rint(found))
    assert (whole.shape, whole.dtype) == ((2, 4, 5, 1), np.uint8)


def test_whole_numbers_stay_to_the_bit():
    np.testing.assert_array_equal(Preprocessing(image_size=4, dtype="uint8").apply(IMAGES), IMAGES)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"scale": "unit", "dtype": "uint8"}, "cannot hold scale unit"),
        ({"scale": "imagenet", "order": "grey"}, "the model reads grey"),
        ({"scale": "0..1"}, "unit"),
    ],
)
def test_what_cannot_be_is_refused(values, words):
    with pytest.raises(ValidationError, match=words):
        Preprocessing(image_size=4, **values)


def test_uint8_inputs_take_pixels_as_they_are():
    found = wanted((None, 224, 224, 3), "uint8")
    assert found == Preprocessing(image_size=224, scale="none", layout="nhwc", dtype="uint8")


def test_the_layout_and_size_of_torch_are_read_from_the_shape():
    found = wanted((None, 3, 96, 96), scale="imagenet")
    assert (found.layout, found.image_size, found.colours) == ("nchw", 96, "rgb")
    assert found.apply(np.zeros((1, 96, 96, 3), np.uint8)).shape == (1, 3, 96, 96)


def test_one_channel_is_grey():
    assert wanted((None, 28, 28, 1), scale="unit").order == "grey"
    assert wanted((None, 1, 28, 28), scale="unit").layout == "nchw"


def test_everything_that_nobody_said_is_asked_for_at_once():
    with pytest.raises(InputError) as error:
        wanted((None, None, None, 3))
    assert len(error.value.problems) == 2
    assert "--image-size" in error.value.problems[0]
    assert "--scale none, unit, -1..1, imagenet or caffe" in error.value.problems[1]


def test_models_of_finetune_say_themselves_what_they_read():
    provenance = {"recipe": {}, "data": {"image_size": 56}}
    assert wanted((None, None, None, 3), "uint8", provenance) == Preprocessing(
        image_size=56, order="rgb", dtype="uint8"
    )
    assert wanted((None, 56, 56, 3), "float32", provenance).scale == "none"


def test_what_was_told_once_is_known_the_next_time():
    first = wanted((None, None, None, 3), image_size=96, scale="caffe")
    again = wanted((None, None, None, 3), provenance={"preprocessing": first.model_dump(mode="json")})
    assert again == first
    assert again.colours == "bgr"


def test_what_is_told_goes_before_provenance_and_says_so():
    provenance = {"preprocessing": {"image_size": 56, "scale": "unit"}}
    found = wanted_preprocessing(
        spec((None, None, None, 3)), provenance, {"scale": "imagenet", "order": None}
    )
    assert str(found) == (
        "images: 56 x 56 px, rgb, (values / 255 - mean) / deviation of ImageNet, as torchvision has it "
        "(scale imagenet), batch x height x width x channels, float32 [scale as told; image size from "
        "provenance.json; dtype, layout from the model's input]"
    )


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"image_size": 96}, "image size 96 does not fit, the model takes 224"),
        ({"layout": "nchw"}, "layout nchw does not fit, the model takes nhwc"),
        ({"scale": "minmax"}, "scale: "),
    ],
)
def test_what_is_told_must_fit_the_model(told, words):
    with pytest.raises(InputError, match=words) as error:
        wanted((None, 224, 224, 3), **({"scale": "unit"} | told))
    assert len(error.value.problems) == 1


@pytest.mark.parametrize("shape", [(None, 10), (None, 4, 4, 7), (None, 224, 320, 3), (None, 3, 3)])
def test_inputs_that_take_no_square_images_are_refused(shape):
    with pytest.raises(ModelError, match="input images: expected"):
        wanted(shape)


@pytest.mark.parametrize("damage", [{"preprocessing": 3}, {"data": []}, {"recipe": {}, "data": None}])
def test_damaged_provenance_says_nothing(damage):
    with pytest.raises(InputError, match="--image-size"):
        wanted(None, provenance=damage, scale="unit")
