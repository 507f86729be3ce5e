"""The prior and the method of `recalibrate`, against a network in NumPy."""

import numpy as np
import pytest

from finetune.errors import InputError
from finetune.policies import Recalibrate
from tests.nets import NumpyNet, images

IMAGES = images(40, loc=0.5)


def start(policy, model, sites):
    return policy.start(model, sites, lambda limit=None: [IMAGES[:limit]])


@pytest.mark.parametrize("method", ["layerwise", "one_pass"])
def test_at_every_site_the_moments_of_the_calibration_set_are_in_force(method, model, sites):
    measurement = start(Recalibrate(method=method), model, sites)
    seen = NumpyNet(model).site_inputs(IMAGES, normalise_with_batch=method == "one_pass")
    for site in sites:
        np.testing.assert_allclose(site.statistics.mean, seen[site.path].mean(0), atol=1e-4)
        np.testing.assert_allclose(site.statistics.variance, seen[site.path].var(0), rtol=1e-3)
    assert (measurement.images, measurement.method) == (40, method)


@pytest.mark.parametrize("prior", [10.0, 40.0, 1000.0])
def test_the_prior_weighs_pretrained_statistics_as_so_many_images(prior, model, sites):
    """At the first site, whose input no other site changes: (N0 x old + n x new) / (N0 + n)."""
    old, share = sites[0].statistics, 40 / (prior + 40)
    start(Recalibrate(prior=prior), model, sites)
    measured = NumpyNet(model).site_inputs(IMAGES, normalise_with_batch=False)["bn_1"]
    expected = {
        "mean": (1 - share) * old.mean + share * measured.mean(0),
        "variance": (1 - share) * old.variance + share * measured.var(0),
    }
    np.testing.assert_allclose(sites[0].statistics.mean, expected["mean"], atol=1e-5)
    np.testing.assert_allclose(sites[0].statistics.variance, expected["variance"], rtol=1e-4)


def test_a_renorm_site_is_refused_by_name(model, sites):
    sites[1].layer.renorm = True
    with pytest.raises(InputError, match=r"batchnorm: renorm sites .* cannot be measured: bn_2"):
        start(Recalibrate(), model, sites)
