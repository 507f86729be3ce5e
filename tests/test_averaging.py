"""The average of the weights, against NumPy's over the steps, and the statistics measured for it."""

import keras
import numpy as np
import pytest

from finetune.averaging import keep_if_no_worse, put_average
from finetune.policies import Affine, Freeze, Retrain, Rules
from finetune.policies.base import unheard
from tests.nets import NumpyNet, images, labels

SHARE = 0.6


def calibration(limit=None):
    return [images(48)[:limit]]


def trained(model, sites, policy):
    """NumPy's moving average of the weights after every step, which begins with those of the first."""
    model.trainable = True
    policy.prepare(sites, trained=sites, steps_per_epoch=3)
    optimizer = keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=SHARE)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    average = None
    for number in range(4):
        model.train_on_batch(images(16, seed=number), labels(16))
        now = [np.array(v, np.float64) for v in model.trainable_weights]
        average = (
            now
            if average is None
            else [SHARE * a + (1 - SHARE) * w for a, w in zip(average, now, strict=True)]
        )
    return average


@pytest.mark.parametrize("policy", [Freeze(), Affine(), Retrain()])
def test_the_weights_become_the_average_over_the_steps(policy, model, sites):
    average = trained(model, sites, policy)
    last = [np.array(v) for v in model.trainable_weights]
    put_average(model, sites, policy, calibration, unheard)
    for variable, expected, before in zip(model.trainable_weights, average, last, strict=True):
        np.testing.assert_allclose(variable, expected, atol=1e-6)
        # a bias in front of a site has no gradient
        assert variable.path.endswith("bias") or not np.allclose(variable, before, atol=1e-6)


def test_statistics_that_follow_are_those_of_the_averaged_network(model, sites):
    trained(model, sites, Retrain())
    put_average(model, sites, Retrain(), calibration, unheard)
    seen = NumpyNet(model).site_inputs(images(48), normalise_with_batch=False)
    for site in sites:
        np.testing.assert_allclose(site.statistics.mean, seen[site.path].mean(0), atol=1e-4)
        np.testing.assert_allclose(site.statistics.variance, seen[site.path].var(0), rtol=1e-3)


@pytest.mark.parametrize(
    ("policy", "moved"),
    [
        (Freeze(), [False, False, False]),
        (Affine(), [False, False, False]),
        (Rules(rules=(Retrain(sites="bn_2"), Freeze())), [False, True, False]),
    ],
    ids=["freeze", "affine", "rules"],
)
def test_statistics_that_a_policy_fixes_stay(policy, moved, model, sites):
    trained(model, sites, policy)
    before = [site.statistics for site in sites]
    put_average(model, sites, policy, calibration, unheard)
    assert [not s.statistics.identical(b) for s, b in zip(sites, before, strict=True)] == moved


@pytest.mark.parametrize(("after", "kept"), [(0.9, True), (1.0, True), (1.1, False), (float("nan"), False)])
def test_what_is_put_is_kept_only_if_the_loss_does_not_rise(after, kept, model):
    before = model.get_weights()

    def put():
        model.set_weights([w + 1 for w in before])

    assert keep_if_no_worse(model, put, lambda: after, 1.0)[0] is kept
    expected = [w + 1 for w in before] if kept else before
    assert all((a == b).all() for a, b in zip(model.get_weights(), expected, strict=True))
