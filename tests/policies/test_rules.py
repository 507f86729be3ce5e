"""Rules: the first that matches a site decides, and the idle, the missing and the contradicting are named."""

import keras
import numpy as np
import pytest

from finetune.batchnorm.promise import Promise
from finetune.errors import RecipeError
from finetune.policies import Affine, Freeze, Recalibrate, Retrain, Rules, Statistics
from finetune.recipe_file import load_text
from tests.nets import NumpyNet, images
from tests.recipe_file import GOOD


def rules(*parts):
    return Rules(rules=parts)


def test_the_first_rule_that_matches_decides(sites):
    found = rules(Retrain(sites="*_2"), Affine(sites="bn_[12]"), Freeze()).promises(sites)
    assert found == {
        "bn_1": Promise("fixed", "train"),
        "bn_2": Promise("follow", "train"),
        "bn_3": Promise("fixed", "fixed"),
    }


def test_each_site_is_in_the_mode_of_its_own_rule(sites):
    policy = rules(Statistics(sites="bn_1"), Affine(sites="bn_2"), Freeze())
    policy.prepare(sites, trained=sites, steps_per_epoch=3)
    assert [(site.mode, site.affine_trains) for site in sites] == [
        ("batch", False),
        ("running", True),
        ("running", False),
    ]


def test_each_site_follows_with_the_momentum_of_its_own_rule(model, sites):
    """One step at rate 0: stored = momentum x stored + (1 - momentum) x the moments that NumPy finds."""
    policy = rules(Retrain(sites="bn_1", momentum=0.5), Retrain(sites="*", momentum=0.8))
    batch, before = images(16), [site.statistics for site in sites]
    seen = NumpyNet(model).site_inputs(batch, normalise_with_batch=True)
    policy.prepare(sites, trained=sites, steps_per_epoch=3)
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    model.train_on_batch(batch, np.zeros(16, int))
    # dropout stands before the third site
    for site, old, momentum in zip(sites[:2], before[:2], (0.5, 0.8), strict=True):
        mean, variance = seen[site.path].mean(0), seen[site.path].var(0)
        np.testing.assert_allclose(
            site.statistics.mean, momentum * old.mean + (1 - momentum) * mean, atol=1e-5
        )
        np.testing.assert_allclose(
            site.statistics.variance, momentum * old.variance + (1 - momentum) * variance, rtol=1e-4
        )


def test_sites_that_no_rule_matches_are_named_with_the_rule_to_add(sites):
    assert rules(Retrain(sites="bn_2")).problems(sites) == [
        "batchnorm: no rule matches 2 of 3 BN sites: bn_1, bn_3; "
        'add a last rule for them, as {sites: "*", policy: freeze}'
    ]


def test_idle_rules_are_named_with_why(sites):
    policy = rules(Freeze(sites="bn_*"), Retrain(sites="bn_2"), Retrain(sites="*conv_2"))
    assert policy.problems(sites) == [
        "batchnorm[1].sites: 'bn_2' matches bn_2, but rules before it match them all; put it before those",
        "batchnorm[2].sites: '*conv_2' matches none of the 3 BN sites; near: bn_2, bn_3, bn_1",
    ]


def test_rules_that_decide_every_site_have_no_problem(sites):
    assert rules(Retrain(sites="*_2"), Freeze()).problems(sites) == []


RECALIBRATED = "{sites: a, policy: recalibrate, samples: 8, prior: 4}"
CONTRADICTIONS = {
    "one key": (
        ["{sites: a, policy: retrain, finish: none}", "{policy: statistics}"],
        "x.yaml:9 batchnorm[1].finish: several rules are measured together: "
        "expected none as under batchnorm[0], got recalibrate",
    ),
    "two keys": (
        [RECALIBRATED, "{sites: b, policy: freeze}", "{policy: recalibrate}"],
        "x.yaml:10 batchnorm[2].samples: several rules are measured together: expected 8 as under batchnorm[0], "
        "got 512; likewise batchnorm[2].prior: expected 4.0, got 0.0",
    ),
    "two rules": (
        [RECALIBRATED, "{sites: b, policy: recalibrate, samples: 8}", "{policy: recalibrate, prior: 4}"],
        "x.yaml:9 batchnorm[1].prior: several rules are measured together: expected 4.0 as under batchnorm[0], "
        "got 0.0; likewise batchnorm[2].samples: expected 8, got 512",
    ),
}


@pytest.mark.parametrize(("given", "said"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_keys_that_contradict_are_named_with_the_line_of_their_rule(given, said):
    listed = "batchnorm:\n" + "".join(f"  - {rule}\n" for rule in given)
    text = GOOD.replace("batchnorm:\n  policy: retrain\n  finish: none\n", listed)
    with pytest.raises(RecipeError) as error:
        load_text(text, "x.yaml")
    assert error.value.problems == (said,)


def test_sites_of_one_kind_are_measured_together_and_others_are_left(model, sites):
    policy = rules(Recalibrate(sites="bn_1"), Freeze(sites="bn_2"), Recalibrate())
    before, batch = [site.statistics for site in sites], images(48, loc=0.5)
    measurement = policy.start(model, sites, lambda limit=None: [batch[:limit]])
    assert measurement.residual < 1e-4
    assert [s.statistics.identical(b) for s, b in zip(sites, before, strict=True)] == [False, True, False]
    # the oracle normalises as the finished network does
    seen = NumpyNet(model).site_inputs(batch, normalise_with_batch=False)
    for site in (sites[0], sites[2]):
        np.testing.assert_allclose(site.statistics.mean, seen[site.path].mean(0), atol=1e-4)
        np.testing.assert_allclose(site.statistics.variance, seen[site.path].var(0), rtol=1e-3)
