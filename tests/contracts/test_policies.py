"""What every BN policy owes, on every kind of model: its promise holds, and the proof says so."""

import numpy as np
import pytest

from finetune.batchnorm import proof
from finetune.batchnorm.sites import find_sites, restored_settings
from finetune.batchnorm.timeline import Timeline, read
from finetune.policies import POLICIES, Affine, Freeze, Recalibrate, Retrain, Rules, Statistics
from tests.nets import NETS, compile_and_fit, images


def rules(first, second):
    """The first site under one policy, the others under another."""
    return lambda sites: Rules(rules=(first.model_copy(update={"sites": sites[0].path}), second))


PLAIN = {policy().policy: lambda sites, policy=policy: policy() for policy in POLICIES}
COMPOSED = {
    "retrain, a frozen epoch": lambda sites: Retrain(freeze_last_epochs=1),
    "statistics, a frozen epoch": lambda sites: Statistics(freeze_last_epochs=1, finish="none"),
    "rules: statistics, affine": rules(Statistics(), Affine()),
    "rules: affine, retrain": rules(Affine(), Retrain(momentum=0.5)),
    "rules: recalibrate, freeze": rules(Recalibrate(), Freeze()),
    "rules: retrain with a frozen epoch, freeze": rules(Retrain(freeze_last_epochs=1), Freeze()),
}
CASES = PLAIN | COMPOSED


def calibration(limit=None):
    return [images(48, seed=5, loc=0.5)[:limit]]


def carry_out(policy, model, sites):
    """The life of a policy in a run: start, prepare before every compile, training, finish, frozen epochs."""
    pretrained = read(sites)
    start = policy.start(model, sites, calibration)
    started, held = read(sites), None
    model.trainable = True
    with restored_settings(sites):
        policy.prepare(sites, trained=sites, steps_per_epoch=3)
        compile_and_fit(model)
        trained = read(sites)
        losses = iter([1.0, 0.5])
        finish = policy.finish_training(model, sites, calibration, lambda: next(losses))
        if policy.frozen_epochs:
            held = read(sites)
            policy.prepare_frozen_epochs(sites, trained=sites)
            compile_and_fit(model, epochs=policy.frozen_epochs)
    paths = frozenset(site.path for site in sites if site.calls)
    return Timeline(pretrained, started, trained, read(sites), start, finish.measurement, paths, held)


def failed(policy, timeline, sites, model):
    checks = proof.check(policy.promises(sites), timeline, sites, model, images(8))
    return [check.name for check in checks if not check.passed]


def test_there_are_as_many_policies_as_the_table_has_rows():
    names = ["freeze", "recalibrate", "retrain", "affine", "statistics"]
    assert [policy().policy for policy in POLICIES] == names


@pytest.mark.parametrize(
    ("case", "kind"),
    [(case, kind) for case in PLAIN for kind in NETS] + [(case, "nested") for case in COMPOSED],
)
def test_a_policy_carried_out_is_proven_and_gives_back_what_it_borrowed(case, kind):
    model = NETS[kind]()
    sites = find_sites(model, images(1))
    before = [site.momentum for site in sites]
    policy = CASES[case](sites)
    assert failed(policy, carry_out(policy, model, sites), sites, model) == []
    assert [site.momentum for site in sites] == before
    assert all(site.affine_trains is site.layer.trainable for site in sites if site.built)


VIOLATIONS = {
    "freeze": (Freeze(), "retrain", ["running statistics are fixed", "gamma and beta are fixed"]),
    "freeze, affine trained": (Freeze(), "affine", ["gamma and beta are fixed"]),
    "recalibrate": (Recalibrate(), "statistics", ["measured statistics are fixed"]),
    "retrain": (Retrain(), "freeze", ["running statistics follow", "gamma and beta train"]),
    "retrain, affine fixed": (Retrain(), "statistics", ["gamma and beta train"]),
    "affine": (Affine(), "retrain", ["running statistics are fixed"]),
    "affine, nothing trained": (Affine(), "freeze", ["gamma and beta train"]),
    "statistics": (Statistics(), "retrain", ["gamma and beta are fixed"]),
    "statistics, nothing followed": (Statistics(), "freeze", ["running statistics follow"]),
}


@pytest.mark.parametrize(("promised", "carried_out", "broken"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_the_proof_names_what_another_policy_did_instead(model, sites, promised, carried_out, broken):
    other = next(policy() for policy in POLICIES if policy().policy == carried_out)
    other = other.model_copy(update={"finish": "none"})
    assert failed(promised, carry_out(other, model, sites), sites, model) == broken


def test_the_proof_names_the_sites_where_rules_were_mixed_up(model, sites):
    promised = Rules(rules=(Retrain(sites="*bn_3", finish="none"), Freeze()))
    carried_out = Rules(rules=(Retrain(sites="*bn_2", finish="none"), Freeze()))
    timeline = carry_out(carried_out, model, sites)
    checks = proof.check(promised.promises(sites), timeline, sites, model, images(8))
    assert {check.name: check.detail for check in checks if not check.passed} == {
        "running statistics are fixed": "NOT frozen: 1 of 2 sites differ from the pretrained ones: bn_2",
        "running statistics follow": "0 of 1 trained sites moved: bn_3",
        "gamma and beta are fixed": "NOT frozen: 1 of 2 sites differ from the pretrained ones: bn_2",
        "gamma and beta train": "0 of 1 trained sites moved: bn_3",
    }


@pytest.mark.parametrize("policy", [Retrain, Statistics])
def test_the_proof_fails_where_the_last_epochs_went_on_as_before(policy, model, sites, monkeypatch):
    monkeypatch.setattr(policy, "prepare_frozen_epochs", lambda self, sites, **_: None)
    frozen = policy(freeze_last_epochs=1)
    broken = ["running statistics stay through the last epochs"]
    assert failed(frozen, carry_out(frozen, model, sites), sites, model) == broken


def test_the_proof_fails_where_there_were_no_frozen_epochs(model, sites):
    timeline = carry_out(Retrain(), model, sites)
    broken = ["running statistics stay through the last epochs"]
    assert failed(Retrain(freeze_last_epochs=2), timeline, sites, model) == broken


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_is_a_value(policy):
    assert policy() == policy()
    assert policy.model_validate(policy().model_dump()) == policy()
    assert hash(policy()) == hash(policy())


@pytest.mark.parametrize("case", CASES)
def test_sites_outside_of_the_trained_part_are_frozen(case, model, sites):
    policy = CASES[case](sites)
    before = read(sites[:2])
    policy.prepare(sites, trained=sites[2:], steps_per_epoch=3)
    if policy.frozen_epochs:
        policy.prepare_frozen_epochs(sites, trained=sites[2:])
    compile_and_fit(model)
    for reading, kept in zip(read(sites[:2]), before, strict=True):
        assert reading.statistics.identical(kept.statistics)
        assert all((a == b).all() for a, b in zip(reading.affine, kept.affine, strict=True))


@pytest.mark.parametrize("policy", POLICIES)
def test_the_docstring_is_one_sentence_for_the_table(policy):
    assert policy.__doc__.strip().endswith(".")
    assert np.char.count(policy.__doc__, "\n") == 0
