"""A reading keeps what the sites held, whatever they hold later."""

import numpy as np

from finetune.batchnorm.moments import RunningStatistics
from finetune.batchnorm.sites import find_sites
from finetune.batchnorm.timeline import read
from tests.nets import custom_layer_net, images


def test_a_reading_does_not_change_with_the_model(sites):
    before = read(sites)
    kept = before[1].statistics.mean.copy(), before[1].affine[0].copy()
    for site in sites:
        site.store(RunningStatistics(site.statistics.mean + 1, site.statistics.variance * 2))
        site.layer.gamma.assign(site.layer.gamma * 3)
    np.testing.assert_array_equal(before[1].statistics.mean, kept[0])
    np.testing.assert_array_equal(before[1].affine[0], kept[1])


def test_layers_that_hold_nothing_are_not_read():
    sites = find_sites(custom_layer_net(), images(1))
    assert len(sites) == 4
    assert [reading.path for reading in read(sites)] == ["block_1/inner_bn", "block_2/inner_bn"]
