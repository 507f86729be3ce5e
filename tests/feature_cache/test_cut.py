"""Where a model may be cut, and where it may not."""

import keras
import numpy as np
import pytest
from keras import layers

from finetune.feature_cache.cut import NotCacheable, cut_in_two, refuse_other_features_in_training
from finetune.heads import Linear
from finetune.policies import Retrain
from finetune.trained_part import choose_trained
from tests.feature_cache.samples import BACKBONES, trainee, unseeded_backbone
from tests.nets import CLASSES, SIZE, functional_net, images


@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)
def test_the_two_parts_make_the_whole(backbone):
    subject = trainee(backbone)
    cut = cut_in_two(subject.model, subject.backbone)
    x = images(5, loc=100, scale=50)
    np.testing.assert_allclose(cut.head(cut.features(x)), subject.model(x), rtol=1e-6)


def test_the_head_is_the_trainable_part_of_the_model_itself():
    subject = trainee()
    cut = cut_in_two(subject.model, subject.backbone)
    trained = [id(variable) for variable in subject.model.trainable_variables]
    assert len(trained) == 4
    assert [id(variable) for variable in cut.head.trainable_variables] == trained
    assert not cut.features.trainable_variables


@pytest.mark.parametrize("head", [Linear(dropout=0.5), Linear(), Linear(hidden=(4,))])
def test_pooling_goes_with_the_backbone(head):
    subject = trainee(head=head)
    assert cut_in_two(subject.model, subject.backbone).features.output.shape == (None, 6)


def test_the_model_is_written_as_if_it_had_never_been_cut(tmp_path):
    subject = trainee()
    before = subject.model.to_json()
    for _ in range(2):
        cut_in_two(subject.model, subject.backbone)
    assert subject.model.to_json() == before
    subject.model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(images(2)), subject.model(images(2)))


def follow_without_affine(site):
    site.follow(None)
    for variable in site.layer.trainable_variables:
        variable.trainable = False


def train_gamma_of_a_frozen_layer(site):
    site.freeze()
    site.layer.gamma.trainable = True


@pytest.mark.parametrize("change", [follow_without_affine, train_gamma_of_a_frozen_layer])
def test_one_site_that_may_change_is_enough_to_refuse(change):
    subject = trainee(BACKBONES["nested"])
    change(subject.sites[1])
    with pytest.raises(NotCacheable, match=r"^outer_backbone changes while training$"):
        cut_in_two(subject.model, subject.backbone)


@pytest.mark.parametrize("train", ["everything", "conv_2"])
def test_a_stage_that_trains_the_backbone_or_its_end_is_refused(train):
    subject = trainee()
    Retrain().prepare(subject.sites, trained=choose_trained(subject, train), steps_per_epoch=3)
    with pytest.raises(NotCacheable, match=r"^backbone changes while training$"):
        cut_in_two(subject.model, subject.backbone)


def test_a_backbone_with_dropout_is_refused():
    subject = trainee(functional_net)
    with pytest.raises(NotCacheable, match=r"^net draws random numbers while training$"):
        cut_in_two(subject.model, subject.backbone)


def test_a_head_that_looks_at_the_image_as_well_is_refused():
    subject = trainee()
    pixels = layers.Flatten()(subject.model.input)
    pooled = layers.GlobalAveragePooling2D()(subject.backbone(subject.model.input))
    outputs = layers.Dense(CLASSES)(layers.Concatenate()([layers.Dense(2)(pooled), pixels]))
    model = keras.Model(subject.model.input, outputs)
    with pytest.raises(NotCacheable, match=r"^the head needs more than the one tensor that dense\S* takes$"):
        cut_in_two(model, subject.backbone)


def test_nothing_to_train_is_refused():
    subject = trainee(head=Linear())
    subject.model.trainable = False
    with pytest.raises(NotCacheable, match=r"^nothing is trained$"):
        cut_in_two(subject.model, subject.backbone)


def test_layers_that_are_random_without_a_flag_are_found_by_what_they_do():
    subject = trainee(unseeded_backbone)
    cut = cut_in_two(subject.model, subject.backbone)
    with pytest.raises(NotCacheable, match=r"^the backbone gives other features in training mode"):
        refuse_other_features_in_training(cut.features, images(2))
    still = trainee()
    refuse_other_features_in_training(cut_in_two(still.model, still.backbone).features, images(2))


def test_images_and_features_have_the_sizes_of_the_model():
    subject = trainee()
    cut = cut_in_two(subject.model, subject.backbone)
    assert cut.features.input.shape == (None, SIZE, SIZE, 3)
    assert cut.head.output.shape == (None, CLASSES)
