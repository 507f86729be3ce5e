"""Small classifiers whose backbones stand still in training, and the images they are trained on."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from finetune.assemble import assemble
from finetune.backbones.base import BuiltBackbone
from finetune.batchnorm.sites import find_sites
from finetune.datasets import TensorFlowDatasets
from finetune.datasets.base import Split, Splits
from finetune.feature_cache import ImageSource
from finetune.heads import Linear
from finetune.policies import Freeze
from finetune.trained_part import Trainee, choose_trained
from tests.nets import CLASSES, SIZE, Block, disturbed

BATCH, EVALUATION_BATCH = 8, 12


def flat_backbone():
    inputs = keras.Input((SIZE, SIZE, 3))
    first = layers.BatchNormalization(name="bn_1")(layers.Conv2D(6, 3, name="conv_1")(inputs))
    second = layers.BatchNormalization(name="bn_2")(layers.Conv2D(6, 1, name="conv_2")(first))
    return keras.Model(inputs, layers.ReLU()(layers.Add()([first, second])), name="backbone")


def nested_backbone():
    """A model inside the backbone, then a custom layer with a site inside and one that is never called."""
    inputs = keras.Input((SIZE, SIZE, 3))
    return keras.Model(inputs, Block(5, name="block")(flat_backbone()(inputs)), name="outer_backbone")


@keras.saving.register_keras_serializable("tests")
class Unseeded(layers.Layer):
    """Random in training without a seed generator, as keras-cv's StochasticDepth is."""

    def call(self, inputs, training=None):
        return inputs * keras.random.uniform((), seed=1) if training else inputs


def unseeded_backbone():
    inner = flat_backbone()
    return keras.Model(inner.input, Unseeded()(inner.output), name="unseeded")


BACKBONES = {"flat": flat_backbone, "nested": nested_backbone}


def trainee(backbone=flat_backbone, head=None, scale=127.5, seed=3) -> Trainee:
    """A classifier as a head-only stage has it: everything set, and ready to be compiled."""
    keras.utils.set_random_seed(seed)
    built = BuiltBackbone(disturbed(backbone()), lambda image: image / scale - 1.0)
    head = head or Linear(dropout=0.5, hidden=(7,))
    model = assemble(built, head, tuple("abc"[:CLASSES]), SIZE)
    subject = Trainee(model, built.model, find_sites(model, np.zeros((1, SIZE, SIZE, 3), np.float32)))
    Freeze().prepare(subject.sites, trained=choose_trained(subject, "head"), steps_per_epoch=3)
    return subject


def split(name, count, seed):
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
    labels = random.integers(0, CLASSES, count).astype(np.int32)
    return Split(name, tf.data.Dataset.from_tensor_slices((pixels, labels)), count, f"{count} of noise")


def source(count=29, seed=5, digest="noise", **keys) -> ImageSource:
    """29 images: three batches, and five images left over."""
    train, validation = split("train", count, 1), split("validation", 17, 2)
    splits = Splits(train, validation, validation, train, tuple("abc"[:CLASSES]), SIZE, digest)
    dataset = TensorFlowDatasets(name="noise", batch_size=BATCH, **keys)
    return ImageSource(splits, dataset, seed, EVALUATION_BATCH)
