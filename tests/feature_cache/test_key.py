"""The key changes with whatever the features depend on, and with nothing else."""

import keras
import pytest

from finetune.feature_cache.cut import cut_in_two
from finetune.feature_cache.key import key_of, network_digest
from finetune.trained_part import choose_trained
from tests.feature_cache.samples import flat_backbone, source, trainee

AUGMENTED = {"augment": ({"layer": "RandomFlip"},)}


def still_part(before=lambda subject: None, precision="float32", **options):
    # Keras numbers the layers that have no name; a run of its own begins at the first number
    keras.backend.clear_session()
    keras.mixed_precision.set_dtype_policy(precision)
    try:
        subject = trainee(**options)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    before(subject)
    return cut_in_two(subject.model, subject.backbone).features


def key(**options):
    return key_of(network_digest(still_part(**options)), source().training().described)


@pytest.fixture(scope="module")
def plain():
    return key()


def other_activation():
    backbone = flat_backbone()
    backbone.get_layer("conv_2").activation = keras.activations.tanh
    return backbone


def one_weight_by_one_bit(subject):
    kernel = subject.backbone.get_layer("conv_2").kernel
    values = keras.ops.convert_to_numpy(kernel).copy()
    values.view("uint32")[0, 0, 0, 0] ^= 1
    kernel.assign(values)


def other_statistics(subject):
    subject.sites[1].layer.moving_mean.assign(subject.sites[1].layer.moving_mean + 1e-3)


def head_retrained(subject):
    layer = subject.model.get_layer("classes")
    layer.set_weights([values + 1 for values in layer.get_weights()])


def trained_everything_before(subject):
    choose_trained(subject, "everything")
    choose_trained(subject, "head")


def test_the_same_network_built_anew_has_the_same_key(plain):
    assert key() == plain
    assert len(plain) == 64


@pytest.mark.parametrize("before", [head_retrained, trained_everything_before])
def test_the_head_and_earlier_stages_have_no_part_in_it(plain, before):
    assert key(before=before) == plain


@pytest.mark.parametrize("before", [one_weight_by_one_bit, other_statistics])
def test_another_weight_is_another_key(plain, before):
    assert key(before=before) != plain


def test_another_preprocessing_is_another_key(plain):
    assert key(scale=128.0) != plain


def test_another_architecture_with_the_same_weights_is_another_key(plain):
    assert key(backbone=other_activation) != plain


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_another_precision_is_another_key(plain, precision):
    assert key(precision=precision) != plain


def test_other_images_are_another_key(plain):
    described = [
        source(digest="other").training().described,
        source(count=28).training().described,
        source().validation().described,
        source(**AUGMENTED).training(views=2).described,
        source(**AUGMENTED).training(views=3).described,
        source(seed=6, **AUGMENTED).training(views=2).described,
        source(augment=({"layer": "RandomFlip", "options": {"mode": "vertical"}},))
        .training(views=2)
        .described,
        source().training().described | {"image_size": 9},
    ]
    features = still_part()
    keys = {plain, *(key_of(network_digest(features), images) for images in described)}
    assert len(keys) == len(described) + 1


def test_the_seed_of_the_order_alone_changes_nothing(plain):
    assert key_of(network_digest(still_part()), source(seed=6).training().described) == plain
