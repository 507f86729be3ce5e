"""`affine` and `statistics` under a real `fit`, on two sites in depth without dropout between them."""

import keras
import numpy as np
import pytest

from finetune.batchnorm.sites import find_sites
from finetune.policies import Affine, Retrain, Statistics
from tests.nets import custom_layer_net, images, labels

RATE = 0.01


@pytest.fixture
def model():
    return custom_layer_net()


@pytest.fixture
def sites(model):
    return [site for site in find_sites(model, images(1)) if site.built]


def cross_entropy(model, x, y, *, batch_statistics):
    """In float64, from the probabilities that the network gives in one mode or the other."""
    found = np.asarray(model(x, training=batch_statistics), np.float64)
    return -np.log(found[np.arange(len(y)), y]).mean()


def step(model, sites, policy, rate=RATE):
    """The loss that one step of training reports."""
    model.trainable = True
    policy.prepare(sites, trained=sites, steps_per_epoch=3)
    model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy")
    return float(model.fit(images(16), labels(16), batch_size=16, verbose=0).history["loss"][0])


def test_affine_trains_on_what_the_running_statistics_give(model, sites):
    x, y = images(16), labels(16)
    expected = cross_entropy(model, x, y, batch_statistics=False)
    other = cross_entropy(custom_layer_net(), x, y, batch_statistics=True)
    assert abs(expected - other) > 0.01
    assert step(model, sites, Affine()) == pytest.approx(expected, abs=1e-5)


def test_statistics_trains_on_what_the_batch_gives(model, sites):
    expected = cross_entropy(custom_layer_net(), images(16), labels(16), batch_statistics=True)
    assert step(model, sites, Statistics()) == pytest.approx(expected, abs=1e-5)


def test_affine_moves_gamma_and_beta_down_the_slope_and_nothing_of_the_statistics(model, sites):
    """The slope is a finite difference of the loss in inference mode, at both sites."""
    slopes, width = [], 0.02
    for site in sites:
        for variable in (site.layer.gamma, site.layer.beta):
            start, found = np.array(variable), []
            for sign in (1, -1):
                variable.assign(start + sign * width * np.eye(len(start))[0])
                found.append(cross_entropy(model, images(16), labels(16), batch_statistics=False))
            variable.assign(start)
            slopes.append((found[0] - found[1]) / (2 * width))
    before = [(site.statistics, site.affine) for site in sites]
    step(model, sites, Affine())
    moved = [
        (new[0] - old[0]) / -RATE
        for site, (_, affine) in zip(sites, before, strict=True)
        for new, old in zip(site.affine, affine, strict=True)
    ]
    np.testing.assert_allclose(moved, slopes, rtol=0.1, atol=2e-3)
    assert all(s.statistics.identical(b) for s, (b, _) in zip(sites, before, strict=True))


def test_statistics_follow_as_under_retrain_while_gamma_and_beta_stay(model, sites):
    twin = custom_layer_net()
    beside = [site for site in find_sites(twin, images(1)) if site.built]
    before = [site.affine for site in sites]
    step(model, sites, Statistics(momentum=0.7))
    step(twin, beside, Retrain(momentum=0.7))
    for site, other, affine in zip(sites, beside, before, strict=True):
        assert site.statistics.identical(other.statistics)
        assert all((a == b).all() for a, b in zip(site.affine, affine, strict=True))
        assert not all((a == b).all() for a, b in zip(other.affine, affine, strict=True))


def test_both_train_the_convolutions_in_front_of_every_site(model, sites):
    for policy in (Affine(), Statistics()):
        before = [np.array(v) for v in model.trainable_variables if v.path.endswith("kernel")]
        step(model, sites, policy)
        after = [np.array(v) for v in model.trainable_variables if v.path.endswith("kernel")]
        assert len(before) == 3
        assert not any((a == b).all() for a, b in zip(after, before, strict=True))
