"""What every BN policy owes, on every kind of model: its promise holds, and the proof says so."""

import numpy as np
import pytest

from finetune.batchnorm import proof
from finetune.batchnorm.sites import find_sites, restored_momentum
from finetune.policies import POLICIES
from tests.nets import NETS, compile_and_fit, images


def calibration(limit=None):
    return [images(48, seed=5, loc=0.5)[:limit]]


def carry_out(policy, model, sites):
    """The life of a policy in a run: start, prepare before the compile, training, finish."""
    pretrained = proof.read(sites)
    start = policy.start(model, sites, calibration)
    started = proof.read(sites)
    model.trainable = True
    with restored_momentum(sites):
        policy.prepare(sites, trained=sites, steps_per_epoch=3)
        compile_and_fit(model)
    trained = proof.read(sites)
    losses = iter([1.0, 0.5])
    finish = policy.finish_training(model, sites, calibration, lambda: next(losses))
    paths = frozenset(site.path for site in sites if site.calls)
    return proof.Timeline(pretrained, started, trained, proof.read(sites), start, finish.measurement, paths)


def test_there_are_as_many_policies_as_the_table_has_rows():
    assert [policy().policy for policy in POLICIES] == ["freeze", "recalibrate", "retrain"]


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_carried_out_is_proven(policy, kind):
    model = NETS[kind]()
    sites = find_sites(model, images(1))
    timeline = carry_out(policy(), model, sites)
    checks = proof.check(policy().promise, timeline, sites, model, images(8))
    assert [c for c in checks if not c.passed] == []


@pytest.mark.parametrize("policy", POLICIES)
def test_the_proof_fails_where_the_policy_was_not_applied(policy):
    model = NETS["functional"]()
    sites = find_sites(model, images(1))
    before = proof.read(sites)
    promise = policy().promise
    if promise.statistics == "follow":
        for site in sites:
            site.freeze()
    compile_and_fit(model)
    after = proof.read(sites)
    timeline = proof.Timeline(before, before, after, after, None, None, frozenset(s.path for s in sites))
    checks = proof.check(promise, timeline, sites, model, images(8))
    assert [c for c in checks if not c.passed]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_is_a_value(policy):
    assert policy() == policy()
    assert policy.model_validate(policy().model_dump()) == policy()
    assert hash(policy()) == hash(policy())


@pytest.mark.parametrize("policy", POLICIES)
def test_momenta_are_given_back(policy):
    model = NETS["functional"]()
    sites = find_sites(model, images(1))
    before = [site.momentum for site in sites]
    carry_out(policy(), model, sites)
    assert [site.momentum for site in sites] == before


@pytest.mark.parametrize("policy", POLICIES)
def test_sites_outside_of_the_trained_part_are_frozen(policy):
    model = NETS["functional"]()
    sites = find_sites(model, images(1))
    policy().prepare(sites, trained=sites[2:], steps_per_epoch=3)
    before = [site.statistics for site in sites[:2]]
    compile_and_fit(model)
    assert all(s.statistics.identical(b) for s, b in zip(sites, before, strict=False))


@pytest.mark.parametrize("policy", POLICIES)
def test_the_docstring_is_one_sentence_for_the_table(policy):
    assert policy.__doc__.strip().endswith(".")
    assert np.char.count(policy.__doc__, "\n") == 0
