"""Effective positions: what a site normalises with when it normalises with the batch."""

import keras
import numpy as np
import pytest
from keras import layers

from finetune.batchnorm.positions import effective_positions, few_positions, too_few_positions
from finetune.batchnorm.sites import find_sites
from tests.nets import SIZE

CONVOLVED = (SIZE - 2) ** 2


@pytest.mark.parametrize("batch", [1, 2, 16, 32])
def test_they_are_batch_times_height_times_width(sites, batch):
    assert [effective_positions(site, batch) for site in sites] == [
        batch * CONVOLVED,
        batch * CONVOLVED,
        batch,
    ]


def test_of_a_shared_site_the_call_with_fewest_counts():
    shared = layers.BatchNormalization()
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, shared(layers.GlobalAveragePooling2D(keepdims=True)(shared(inputs))))
    (site,) = find_sites(model, np.zeros((1, 4, 4, 3), np.float32))
    assert effective_positions(site, 8) == 8


@pytest.mark.parametrize("batch", [2, 3, 16])
def test_two_positions_are_enough_to_train(sites, batch):
    assert too_few_positions(sites, batch) == []


def test_a_single_position_is_refused_with_the_site_and_what_to_do(sites):
    assert too_few_positions(sites, 1) == [
        "data.batch_size: batches of 1 leave a single position behind each channel of 1 of 3 sites that normalise "
        "with the batch (bn_3: 1): nothing to normalise with; use batches of at least 2 images (16 or more is "
        "better), or one of the policies freeze, recalibrate and affine for these sites"
    ]


@pytest.mark.parametrize(("batch", "warned"), [(2, True), (15, True), (16, False), (64, False)])
def test_a_warning_ends_at_16_positions(sites, batch, warned):
    assert bool(few_positions(sites, batch)) is warned


def test_the_warning_names_sites_positions_and_the_batch_that_is_enough(sites):
    assert few_positions(sites, 8) == [
        "few positions behind each channel of 1 of 3 sites that normalise with the batch (bn_3: 8): their batch "
        "statistics are mostly noise; use batches of at least 16 images (data.batch_size), or one of the policies "
        "freeze, recalibrate and affine for these sites"
    ]


def test_no_site_in_batch_mode_is_no_problem():
    assert too_few_positions([], 1) == []
    assert few_positions([], 1) == []
