"""What is known of a training before it starts."""

import pytest

from finetune.batchnorm.horizon import Stretch
from finetune.batchnorm.sites import find_sites
from finetune.outlook import followed_stretches, outlook
from finetune.policies import Affine, Freeze, Recalibrate, Retrain, Rules, Statistics
from finetune.stage import FromLayer, Stage
from finetune.trained_part import Trainee
from tests.nets import images, nested_net

STEPS = 10
HEAD = Stage(train="head", epochs=2, learning_rate=0.1)
ALL = Stage(train="everything", epochs=3, learning_rate=0.1)
UPPER = Stage(train=FromLayer(**{"from": "conv_2"}), epochs=1, learning_rate=0.1)


@pytest.fixture(scope="module")
def trainee():
    model = nested_net()
    return Trainee(model, model.get_layer("net"), find_sites(model, images(1)))


def followed(trainee, policy, *stages):
    return followed_stretches(trainee, policy, stages, 16, STEPS * 16)


def test_sites_follow_in_the_stages_that_train_them(trainee):
    assert followed(trainee, Retrain(), HEAD) == {}
    assert followed(trainee, Retrain(), HEAD, UPPER, ALL) == {
        "net/bn_1": [Stretch(0.9, 30)],
        "net/bn_2": [Stretch(0.9, 10), Stretch(0.9, 30)],
        "net/bn_3": [Stretch(0.9, 10), Stretch(0.9, 30)],
    }


@pytest.mark.parametrize("policy", [Freeze(), Recalibrate(), Affine()])
def test_no_site_follows_under_policies_that_hold_statistics(policy, trainee):
    assert followed(trainee, policy, ALL) == {}
    assert outlook(trainee, policy, [ALL], STEPS, batch_size=1).problems == ()


def test_frozen_epochs_do_not_count(trainee):
    stretches = followed(trainee, Statistics(freeze_last_epochs=2), UPPER, ALL)
    assert stretches["net/bn_2"] == [Stretch(0.9, 10), Stretch(0.9, 10)]


def test_the_share_that_is_left_is_told_site_by_site(trainee):
    (warning,) = outlook(trainee, Retrain(momentum="keep"), [ALL], STEPS, batch_size=16).warnings
    # momentum .9, .99 and .999 over 30 steps
    assert warning.startswith("2 of 3 sites that follow the batch keep more than 5% of their initial ")
    assert "(net/bn_3: 97%, net/bn_2: 74%; momentum 0.999 over 30 steps)" in warning


def test_auto_momentum_over_enough_steps_warns_of_nothing(trainee):
    assert outlook(trainee, Retrain(), [ALL], STEPS, batch_size=16).warnings == ()


def test_a_batch_of_one_is_refused_where_a_site_follows_and_a_small_one_is_warned_of(trainee):
    (problem,) = outlook(trainee, Retrain(), [ALL], STEPS, batch_size=1).problems
    assert "1 of 3 sites that normalise with the batch (net/bn_3: 1)" in problem
    (warning,) = outlook(trainee, Retrain(), [ALL], STEPS, batch_size=8).warnings
    assert "(net/bn_3: 8)" in warning


def test_only_the_sites_whose_rule_follows_the_batch_count(trainee):
    rules = Rules(rules=(Freeze(sites="*bn_3"), Retrain()))
    assert set(followed(trainee, rules, ALL)) == {"net/bn_1", "net/bn_2"}
    ahead = outlook(trainee, rules, [ALL], STEPS, batch_size=1)
    assert (ahead.problems, ahead.warnings) == ((), ())


def test_rules_that_do_not_fit_the_network_are_problems(trainee):
    rules = Rules(rules=(Freeze(sites="*conv*"), Retrain(sites="*bn_1")))
    missing, idle = outlook(trainee, rules, [ALL], STEPS, batch_size=16).problems
    assert missing.startswith("batchnorm: no rule matches 2 of 3 BN sites: net/bn_2, net/bn_3")
    assert idle.startswith("batchnorm[0].sites: '*conv*' matches none of the 3 BN sites")


def test_momenta_are_given_back(trainee):
    before = [site.momentum for site in trainee.sites]
    outlook(trainee, Retrain(momentum=0.5), [HEAD, ALL], STEPS, batch_size=16)
    assert [site.momentum for site in trainee.sites] == before
