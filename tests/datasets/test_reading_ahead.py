"""Whoever reads to the end does not wait for tf.data's autotuning thread; see finetune.datasets.reading_ahead."""

import numpy as np
import pytest
import tensorflow as tf

from finetune.datasets import TensorFlowDatasets
from finetune.datasets.batches import evaluation_batches, images_only, training_batches
from finetune.datasets.mix import Mix, mixed
from finetune.datasets.reading_ahead import read_ahead
from finetune.feature_cache import cached_head_stage
from tests.datasets.test_batches import LABELS, split_of
from tests.feature_cache import samples


def autotuned(batches):
    return batches.options().autotune.enabled is not False


def drawn(**keys):
    return training_batches(split_of(LABELS), TensorFlowDatasets(name="numbers", batch_size=4, **keys), 0)


FLIPPED = {"augment": ({"layer": "RandomFlip", "options": {"mode": "horizontal"}},)}

READ = {
    "training": drawn,
    "augmented": lambda: drawn(**FLIPPED),
    "mixed": lambda: mixed(drawn(), Mix(kind="mixup"), 4, 0),
    "evaluation": lambda: evaluation_batches(split_of(LABELS), 4),
    "images": lambda: images_only(split_of(LABELS), 4),
    "some images": lambda: images_only(split_of(LABELS), 4, 8),
}


@pytest.mark.parametrize("read", READ.values(), ids=READ)
def test_no_reader_of_images_is_autotuned(read):
    assert not autotuned(read())


def test_nor_is_one_of_kept_features():
    subject, images = samples.trainee(), samples.source()
    stage = cached_head_stage(subject.model, subject.backbone, images, "memory")
    assert not any(autotuned(read) for read in (stage.training, stage.validation, stage.rebatched(images)))


MADE_OF_IT = {
    "map": lambda batches: batches.map(lambda x: x + 1),
    "zip": lambda batches: tf.data.Dataset.zip(batches, tf.data.Dataset.random(seed=1)),
    "repeat and take": lambda batches: batches.repeat().take(3),
    "shard": lambda batches: batches.shard(2, 1),
    "prefetch": lambda batches: batches.prefetch(tf.data.AUTOTUNE),
}


@pytest.mark.parametrize("made", MADE_OF_IT.values(), ids=MADE_OF_IT)
def test_nor_what_is_made_of_one(made):
    plain = tf.data.Dataset.range(6).batch(2)
    assert autotuned(made(plain))
    assert not autotuned(made(read_ahead(plain)))


def test_the_batches_are_the_same_and_their_number_is_known():
    def order():
        return tf.data.Dataset.range(100).shuffle(50, seed=3, reshuffle_each_iteration=True).batch(8)

    def epochs(batches):
        return [np.concatenate(list(batches.as_numpy_iterator())).tolist() for _ in range(2)]

    assert epochs(read_ahead(order())) == epochs(order())
    assert int(read_ahead(order()).cardinality()) == 13
