"""BN policies in a training that is written by hand: what the README shows of them."""

from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest
import tensorflow as tf

import finetune
from finetune.batchnorm.measure import residual
from finetune.batchnorm.sites import find_sites
from finetune.errors import InputError, ProofError
from tests.nets import disturbed, images, labels, nested_net

README = Path(__file__).resolve().parents[1] / "README.md"
POLICIES = [
    finetune.Freeze(),
    finetune.Recalibrate(),
    finetune.Retrain(),
    finetune.Affine(),
    finetune.Statistics(),
]


def fitted(model, **given):
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model.fit(images(48), labels(48), batch_size=16, epochs=2, verbose=0, **given)


def test_the_loop_in_the_readme_runs():
    [block] = [
        part.split("```")[0] for part in README.read_text().split("```python") if "finetune.apply(" in part
    ]
    given = {"model": nested_net(), "x": images(48), "y": labels(48)}
    exec(block, given)
    assert given["applied"].policy.policy == "retrain"


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.policy)
def test_every_policy_is_carried_out_and_proven(policy):
    model = disturbed(nested_net())
    momenta = [site.momentum for site in finetune.apply(policy, model, images(48)).sites]
    model = disturbed(nested_net())
    applied = finetune.apply(policy, model, images(48), steps_per_epoch=3)
    before = [site.statistics.mean for site in applied.sites]
    fitted(model)
    applied.finish()
    assert all(check.passed for check in applied.prove())
    moved = [
        not np.array_equal(a, site.statistics.mean) for a, site in zip(before, applied.sites, strict=True)
    ]
    assert set(moved) == {policy.policy in ("retrain", "statistics")}
    assert len(momenta) == len(applied.sites) == 3


def test_what_retrain_leaves_is_measured_and_momentum_is_given_back():
    model = nested_net()
    own = [site.momentum for site in find_sites(model, images(1))]
    applied = finetune.apply(finetune.Retrain(momentum=0.5), model, images(48), steps_per_epoch=3)
    assert {site.momentum for site in applied.sites} == {0.5}
    fitted(model)
    assert residual(model, applied.sites, [images(48)]) > 0.01
    applied.finish()
    assert residual(model, applied.sites, [images(48)]) < 1e-4
    assert [site.momentum for site in applied.sites] == own


def test_what_is_measured_is_put_back_where_the_loss_rises():
    model = nested_net()
    applied = finetune.apply(finetune.Retrain(), model, images(48), steps_per_epoch=3)
    fitted(model)
    trained = [site.statistics.mean for site in applied.sites]
    losses = iter((1.0, 2.0))
    assert applied.finish(lambda: next(losses)).kept is False
    for mean, site in zip(trained, applied.sites, strict=True):
        np.testing.assert_array_equal(mean, site.statistics.mean)
    applied.prove()


def test_layers_that_do_not_train_keep_their_sites_until_they_do():
    model = nested_net()
    model.get_layer("net").trainable = False
    applied = finetune.apply(finetune.Retrain(finish="none"), model, images(48), steps_per_epoch=3)
    assert {site.mode for site in applied.sites} == {"running"}
    fitted(model)
    model.get_layer("net").trainable = True
    applied.prepare(3)
    assert {site.mode for site in applied.sites} == {"batch"}
    fitted(model)
    applied.finish()
    applied.prove()


def test_who_unfreezes_after_apply_is_told():
    model = nested_net()
    applied = finetune.apply(finetune.Freeze(), model, images(48))
    for site in applied.sites:
        site.layer.trainable = True
    fitted(model)
    applied.finish()
    with pytest.raises(
        ProofError, match=r"the policy did not hold: running statistics are fixed: .*net/bn_1"
    ):
        applied.prove()


def test_proof_before_finish_is_refused():
    with pytest.raises(InputError, match=r"call finish\(\) before"):
        finetune.apply(finetune.Freeze(), nested_net(), images(48)).prove()


KINDS = {
    "list of batches": lambda x: [x[:20], x[20:]],
    "dataset": lambda x: tf.data.Dataset.from_tensor_slices(x).batch(20),
    "dataset with labels": lambda x: tf.data.Dataset.from_tensor_slices((x, labels(len(x)))).batch(20),
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_of_images_measure_the_same(kind):
    one, other = nested_net(), nested_net()
    policy = finetune.Recalibrate(samples=30)
    expected = finetune.apply(policy, one, images(48))
    found = finetune.apply(policy, other, KINDS[kind](images(48)))
    for a, b in zip(expected.sites, found.sites, strict=True):
        np.testing.assert_allclose(a.statistics.mean, b.statistics.mean, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (iter([np.zeros((1, 8, 8, 3))]), "read more than once, found list_iterator"),
        (3, "found int"),
        (np.zeros((0, 8, 8, 3)), r"found \(0, 8, 8, 3\)"),
        ([], "images: found none"),
    ],
)
def test_images_that_cannot_be_read_are_refused(given, said):
    with pytest.raises(InputError, match=said):
        finetune.apply(finetune.Freeze(), nested_net(), given)


def test_freezing_the_last_epochs_belongs_to_the_trainer():
    with pytest.raises(InputError, match="freeze_last_epochs belongs to the trainer"):
        finetune.apply(finetune.Retrain(freeze_last_epochs=1), nested_net(), images(4))


def test_the_shift_is_in_the_history_and_in_mlflow(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    model = nested_net()
    with mlflow.start_run() as run:
        watched = finetune.RunningStatisticsShift(images(4), mlflow.log_metrics)
        history = fitted(model, callbacks=[watched]).history
    moved = history["bn_shift/mean"]
    assert 0 < moved[0] < moved[1]
    kept = mlflow.MlflowClient().get_metric_history(run.info.run_id, "bn_shift/mean")
    assert [(each.step, each.value) for each in kept] == [(1, moved[0]), (2, moved[1])]


def test_frozen_statistics_shift_by_nothing():
    model = nested_net()
    finetune.apply(finetune.Freeze(), model, images(4))
    history = fitted(model, callbacks=[finetune.RunningStatisticsShift(images(4))]).history
    assert history["bn_shift/mean"] == history["bn_shift/kl"] == [0.0, 0.0]


def test_a_frozen_model_is_still_one_of_plain_keras(tmp_path):
    model = nested_net()
    applied = finetune.apply(finetune.Freeze(), model, images(48))
    fitted(model)
    applied.finish()
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(images(4)), model(images(4)), atol=1e-6)
