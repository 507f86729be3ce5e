"""What is left of the initial running statistics after a training, and what that costs in service."""

import keras
import numpy as np
import pytest
from keras import layers

from finetune.batchnorm.horizon import MOST_LEFT, Stretch, share_left, short_horizon
from finetune.batchnorm.measure import measure
from finetune.batchnorm.sites import find_sites


@pytest.mark.parametrize("stretches", [[(0.9, 30)], [(0.99, 145)], [(0.5, 2), (0.9, 10)], [(0.0, 1)], []])
def test_the_share_is_what_keras_rule_leaves_of_a_statistic_that_meets_zeros(stretches):
    value = 1.0
    for momentum, steps in stretches:
        for _ in range(steps):
            value = momentum * value + (1 - momentum) * 0.0
    assert share_left([Stretch(m, s) for m, s in stretches]) == pytest.approx(value)


def test_nobody_is_warned_of_5_percent_or_less():
    half = Stretch(MOST_LEFT**0.5, 1)
    assert short_horizon({"a": [half, half], "b": [Stretch(0.9, 100)]}) == []
    assert short_horizon({}) == []


def test_the_warning_names_the_sites_that_keep_most_and_what_to_do():
    followed = {
        "a": [Stretch(0.9, 145)],
        "b": [Stretch(0.99, 145)],
        "c": [Stretch(0.99, 100), Stretch(0.999, 45)],
    }
    assert short_horizon(followed) == [
        "2 of 3 sites that follow the batch keep more than 5% of their initial running statistics through the "
        "training (c: 35%, b: 23%; momentum 0.999 over 145 steps): momentum: 0.97 or a longer training would leave "
        "less; finish: recalibrate, the default, measures them anew in the end"
    ]


@pytest.mark.parametrize("steps", [1, 8, 31, 145, 3000])
def test_the_momentum_that_is_told_is_low_enough(steps):
    (warning,) = short_horizon({"a": [Stretch(0.99999, steps)]})
    told = float(warning.split("): momentum: ")[1].split(" ")[0])
    assert share_left([Stretch(told, steps)]) <= MOST_LEFT
    assert share_left([Stretch(told + 0.02, steps)]) > MOST_LEFT


STEPS, BATCH, CLASSES, SIDE = 145, 16, 4, 8


def task(seed):
    """Raw values around 200; a class is the quarter of the image that is a little brighter."""
    random = np.random.default_rng(seed)
    answers = random.integers(0, CLASSES, STEPS // 5 * BATCH)
    images = random.normal(200, 4, (len(answers), SIDE, SIDE, 3))
    for image, answer in zip(images, answers, strict=True):
        row, column = divmod(answer, 2)
        image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 12
    return images.astype(np.float32), answers


def two_sites():
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((SIDE, SIDE, 3))
    for _ in range(2):
        x = layers.Conv2D(8, 3, use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.99)(x))
    return keras.Model(inputs, layers.Dense(CLASSES, activation="softmax")(layers.Flatten()(x)))


def test_145_steps_at_99_guess_in_service_and_know_after_recalibration():
    model, (images, answers), (unseen, truth) = two_sites(), task(1), task(2)
    model.compile(keras.optimizers.SGD(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images, answers, batch_size=BATCH, epochs=5, verbose=0)
    assert model.optimizer.iterations == STEPS
    in_service = model.evaluate(unseen, truth, verbose=0, return_dict=True)["accuracy"]
    sites = find_sites(model, unseen[:1])
    assert short_horizon({site.path: [Stretch(site.momentum, STEPS)] for site in sites})
    measure(model, sites, lambda: [images])
    recalibrated = model.evaluate(unseen, truth, verbose=0, return_dict=True)["accuracy"]
    assert in_service < 1 / CLASSES + 0.1
    assert recalibrated > 0.97
