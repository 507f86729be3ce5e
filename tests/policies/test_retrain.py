"""Momentum and finish of `retrain`."""

import pytest
from pydantic import ValidationError

from finetune.policies import Recalibrate, Retrain
from tests.nets import images


@pytest.mark.parametrize(("steps", "momentum"), [(1, 0.9), (31, 0.9), (100, 0.9), (200, 0.95), (1000, 0.99)])
def test_auto_momentum_is_kornbliths_rule(sites, steps, momentum):
    Retrain().prepare(sites, trained=sites, steps_per_epoch=steps)
    assert [site.momentum for site in sites] == pytest.approx([momentum] * 3)


def test_keep_leaves_each_site_its_own_momentum(sites):
    Retrain(momentum="keep").prepare(sites, trained=sites, steps_per_epoch=31)
    assert [site.momentum for site in sites] == [0.9, 0.99, 0.999]


def test_a_number_is_the_momentum(sites):
    Retrain(momentum=0.5).prepare(sites, trained=sites, steps_per_epoch=31)
    assert [site.momentum for site in sites] == [0.5] * 3


@pytest.mark.parametrize("momentum", [1.0, -0.1, "slow"])
def test_other_momenta_are_refused(momentum):
    with pytest.raises(ValidationError):
        Retrain(momentum=momentum)


def finish(policy, model, sites, *losses):
    values = iter(losses)
    return policy.finish_training(model, sites, lambda limit=None: [images(48)[:limit]], lambda: next(values))


@pytest.mark.parametrize(("after", "kept"), [(0.9, True), (1.0, True), (1.1, False), (float("nan"), False)])
def test_the_finish_is_kept_only_if_the_validation_loss_does_not_rise(model, sites, after, kept):
    trained = [site.statistics for site in sites]
    outcome = finish(Retrain(), model, sites, 1.0, after)
    assert outcome.kept is kept
    unmoved = all(s.statistics.identical(t) for s, t in zip(sites, trained, strict=True))
    assert unmoved is not kept


def test_finish_none_measures_nothing(model, sites):
    trained = [site.statistics for site in sites]
    outcome = finish(Retrain(finish="none"), model, sites)
    assert outcome.measurement is None
    assert all(s.statistics.identical(t) for s, t in zip(sites, trained, strict=True))


@pytest.mark.parametrize("policy", [Recalibrate(samples=20), Retrain(samples=20)])
def test_no_more_than_samples_images_are_measured(model, sites, policy):
    if isinstance(policy, Recalibrate):
        measurement = policy.start(model, sites, lambda limit=None: [images(48)[:limit]])
    else:
        measurement = finish(policy, model, sites, 1.0, 1.0).measurement
    assert measurement.images == 20
