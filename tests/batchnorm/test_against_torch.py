"""One-pass statistics against torch's `update_bn` and fvcore's precise BN, each under its own convention.

All three run every site with the batch's own moments; what differs is how the batches are put together:

- here and in fvcore (`_PopulationVarianceEstimator`): the biased variance of all positions together, every batch
  weighing by its positions. fvcore takes E[x^2] - E[x]^2 in float32, this package merges M2 in float64.
- `torch.optim.swa_utils.update_bn`: the plain mean over the batches of their means, and of their unbiased variances,
  whatever their sizes. The variance of the batch means is missing from it.

`scripts/make_torch_reference.py` made the reference; neither library is needed here.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from keras.layers import Dropout

from finetune.batchnorm.population import one_pass
from finetune.batchnorm.sites import find_sites
from tests.nets import functional_net

SITES = ("bn_1", "bn_2", "bn_3")
SPLITS = ("uneven", "even")

everywhere = pytest.mark.parametrize(("split", "site"), [(p, s) for p in SPLITS for s in SITES])


@pytest.fixture(scope="module")
def reference():
    with np.load(Path(__file__).parent / "torch_reference.npz", allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def network(reference):
    """The network of the reference, with its weights."""
    model = functional_net()
    for layer in model.layers:
        for variable in layer.weights:
            # dropout keeps a seed among its weights, and PyTorch's network has no dropout
            if not isinstance(layer, Dropout):
                variable.assign(reference[f"weights/{layer.name}/{variable.name}"])
    return model


@dataclass
class Measured:
    """What this package measures at one site: n, mean and variance of every batch, and the pooled moments."""

    n: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    pooled: object

    @property
    def too_much_weight(self):
        """By how much equal weights are more than a batch's share of the positions."""
        return 1 / len(self.n) - self.n / self.n.sum()


@pytest.fixture(scope="module")
def measured(reference, network):
    """(split, site) -> Measured."""
    sites = find_sites(network, reference["images"][:1])
    found = {}
    for split in SPLITS:
        batches = np.split(reference["images"], np.cumsum(reference[f"sizes/{split}"])[:-1])
        pooled, _ = one_pass(network, sites, batches)
        single = [one_pass(network, sites, [batch])[0] for batch in batches]
        for i, site in enumerate(SITES):
            parts = [moments[i] for moments in single]
            n = np.array([[part.count] for part in parts])
            mean, variance = (np.stack([getattr(p, what) for p in parts]) for what in ("mean", "variance"))
            found[split, site] = Measured(n, mean, variance, pooled[i])
    return found


def theirs(reference, library, split, site):
    prefix = f"{library}/{split}/{site}"
    return (reference[f"{prefix}/{what}"].astype(np.float64) for what in ("mean", "variance"))


def assert_equal_in_sd(mean, expected, variance):
    np.testing.assert_allclose((mean - expected) / np.sqrt(variance), 0, atol=1e-5)


def test_the_reference_says_what_made_it(reference):
    assert [version.split()[0] for version in reference["versions"]] == ["torch", "fvcore", "numpy"]


def test_it_is_the_same_network(reference, network):
    np.testing.assert_allclose(network(reference["images"]), reference["probabilities"], atol=1e-6)


@everywhere
def test_fvcore_measures_the_population_as_one_pass_does(reference, measured, split, site):
    mean, variance = theirs(reference, "fvcore", split, site)
    pooled = measured[split, site].pooled
    assert_equal_in_sd(mean, pooled.mean, pooled.variance)
    np.testing.assert_allclose(variance, pooled.variance, rtol=1e-5)


@everywhere
def test_update_bn_is_the_plain_mean_of_batch_means_and_unbiased_batch_variances(
    reference, measured, split, site
):
    mean, variance = theirs(reference, "update_bn", split, site)
    ours = measured[split, site]
    assert_equal_in_sd(mean, ours.mean.mean(0), variance)
    np.testing.assert_allclose(variance, (ours.variance * ours.n / (ours.n - 1)).mean(0), rtol=1e-5)


@everywhere
def test_the_means_differ_by_the_weight_of_uneven_batches(reference, measured, split, site):
    mean, _ = theirs(reference, "update_bn", split, site)
    ours = measured[split, site]
    expected = (ours.too_much_weight * ours.mean).sum(0)
    assert_equal_in_sd(mean - ours.pooled.mean, expected, ours.pooled.variance)
    assert expected.any() == (split == "uneven")


def terms(ours):
    """What `update_bn` adds by Bessel's correction and by uneven batches, and the variance of means it leaves out.

    Each in population variances, (channels,).
    """
    bessel = (ours.variance / (ours.n - 1)).mean(0)
    uneven = (ours.too_much_weight * ours.variance).sum(0)
    between = (ours.n / ours.n.sum() * (ours.mean - ours.pooled.mean) ** 2).sum(0)
    return np.array([bessel, uneven, -between]) / ours.pooled.variance


@everywhere
def test_the_variances_differ_by_three_terms(reference, measured, split, site):
    _, variance = theirs(reference, "update_bn", split, site)
    ours = measured[split, site]
    np.testing.assert_allclose(variance / ours.pooled.variance - 1, terms(ours).sum(0), atol=1e-5)


PERCENT = {
    ("uneven", "bn_1"): (0.31, 11.22, -37.12),
    ("uneven", "bn_2"): (0.26, 1.69, -0.01),
    ("uneven", "bn_3"): (10.43, -14.87, -1.05),
    ("even", "bn_1"): (0.21, 0.00, -39.81),
    ("even", "bn_2"): (0.21, 0.00, -0.01),
    ("even", "bn_3"): (8.33, 0.00, -1.51),
}
"""Bessel, uneven batches, variance of means: percent of the population variance, the channel where each is largest.

The images grow brighter from batch to batch: the first site sees it in the variance of the means; what it hands on is
normalised with each batch's own moments, so that the second sees nothing of it. Bessel's n / (n - 1) is felt behind the
dense layer, where a batch has as many positions as images (7 to 16), not behind the convolutions (252 to 576).
"""


@everywhere
def test_how_much_each_term_is(measured, split, site):
    shares = terms(measured[split, site])
    largest = np.take_along_axis(shares, np.abs(shares).argmax(1)[:, None], 1)[:, 0]
    np.testing.assert_allclose(100 * largest, PERCENT[split, site], atol=0.006)
