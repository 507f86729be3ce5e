"""The trainer: what trains, how fast, when it stops, what it keeps."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from finetune.batchnorm.fast_sites import fast_sites
from finetune.batchnorm.sites import find_sites
from finetune.batchnorm.timeline import read
from finetune.compiling import compile_stage
from finetune.errors import DivergedError, InputError
from finetune.fitting import refuse_collapse
from finetune.orders import Orders
from finetune.policies import Freeze, Retrain, Statistics
from finetune.progress import Progress
from finetune.stage import FromLayer, Stage
from finetune.train import (
    Material,
    fit_frozen_epochs,
    fit_stage,
    following_epochs,
)
from finetune.trained_part import Trainee, choose_trained
from tests.nets import CLASSES, images, labels, nested_net

STEPS = 3


def batches(count=48, x=None):
    x = images(count) if x is None else x
    return tf.data.Dataset.from_tensor_slices((x, labels(count).astype(np.int32))).batch(16)


def calibration(limit=None):
    return [images(48)[:limit]]


def trainee():
    model = nested_net()
    return Trainee(model, model.get_layer("net"), find_sites(model, images(1)))


def material(training=None):
    return Material(Orders(training or batches()), batches(), STEPS, 16, CLASSES, None, calibration)


def fit(stage, policy=None, subject=None, data=None, log=None, progress=None, before=None):
    subject = subject or trainee()
    fit_stage(
        subject,
        policy or Freeze(),
        stage,
        "stage 1 of 1",
        data or material(),
        progress or Progress(),
        log or (lambda epoch, metrics: None),
        before,
    )
    return subject


def trained_names(subject):
    return {layer.name for layer in subject.backbone.layers if layer.trainable and layer.weights}


def test_head_leaves_the_backbone_bit_identical():
    subject = trainee()
    before = subject.backbone.get_weights()
    fit(Stage(train="head", epochs=1, learning_rate=0.1), Retrain(), subject)
    assert all(
        a.tobytes() == b.tobytes() for a, b in zip(before, subject.backbone.get_weights(), strict=True)
    )


def devices(graph):
    """Those that the nodes of a graph, and of the functions in it, are tied to."""
    definition = graph.as_graph_def()
    inside = [node for function in definition.library.function for node in function.node_def]
    return {node.device for node in (*definition.node, *inside)} - {""}


@pytest.mark.parametrize("policy", [Freeze(), Retrain()], ids=["freeze", "retrain"])
def test_no_operation_of_a_training_step_is_tied_to_a_device(policy):
    # so that TensorFlow puts it on a GPU where there is one
    subject, stage = trainee(), Stage(train="everything", epochs=1, learning_rate=0.01)
    policy.prepare(subject.sites, trained=choose_trained(subject, stage.train), steps_per_epoch=STEPS)
    with fast_sites(subject.model, subject.sites):
        compile_stage(subject.model, stage, STEPS)
        step = tf.function(lambda x, y: subject.model.train_step((x, y)))
        graph = step.get_concrete_function(images(16), labels(16)).graph
    assert len(graph.get_operations()) > 100
    assert devices(graph) == set()


def test_an_operation_that_is_tied_to_a_device_would_be_seen():
    @tf.function
    def pinned(x):
        with tf.device("CPU:0"):
            return x + 1

    assert len(devices(pinned.get_concrete_function(tf.zeros(3)).graph)) == 1


def test_everything_trains_what_an_earlier_stage_froze():
    subject = trainee()
    choose_trained(subject, "head")
    assert trained_names(subject) == set()
    inside = choose_trained(subject, "everything")
    assert trained_names(subject) == {"conv_1", "bn_1", "conv_2", "bn_2", "dense", "bn_3", "out"}
    assert len(inside) == 3


@pytest.mark.parametrize(("pattern", "first"), [("conv_2", "conv_2"), ("*_2", "conv_2"), ("dense", "dense")])
def test_from_a_layer_on_keeps_what_comes_before(pattern, first):
    subject = trainee()
    inside = choose_trained(subject, FromLayer(**{"from": pattern}))
    assert "conv_1" not in trained_names(subject)
    assert first in trained_names(subject)
    assert "net/bn_1" not in {site.path for site in inside}


def test_a_layer_that_is_not_there_is_said_with_those_that_are():
    subject = trainee()
    names = [layer.name for layer in subject.backbone.layers]
    with pytest.raises(InputError) as error:
        choose_trained(subject, FromLayer(**{"from": "conv_9"}))
    assert str(error.value) == (
        "stages: train from 'conv_9': the backbone net has no such layer; it has image, conv_1, bn_1, "
        f"{', '.join(names[3:6])}, ... out (14 layers; * and ? are understood)"
    )


def test_the_policy_holds_through_two_stages():
    subject = trainee()
    before = read(subject.sites)
    fit(Stage(train="everything", epochs=1, learning_rate=0.1), subject=subject)
    fit(Stage(train="everything", epochs=1, learning_rate=0.1), subject=subject)
    after = read(subject.sites)
    assert all(a.statistics.identical(b.statistics) for a, b in zip(before, after, strict=True))


def rates(**options):
    model = nested_net()
    compile_stage(model, Stage(train="head", epochs=2, learning_rate=1.0, **options), steps=100)
    rate = model.optimizer._learning_rate
    return [float(rate(step)) for step in range(101)] if callable(rate) else [float(rate)] * 101


def test_the_rate_warms_up_linearly_and_falls_like_a_cosine():
    rate = rates(warmup=0.1)
    assert rate[0] == pytest.approx(0.0)
    assert rate[5] == pytest.approx(0.5)
    assert rate[10] == pytest.approx(1.0)
    assert rate[55] == pytest.approx(0.5, abs=0.02)
    assert rate[100] == pytest.approx(0.0, abs=1e-6)


def test_a_constant_rate_stays_after_its_warmup():
    rate = rates(schedule="constant", warmup=0.1)
    assert rate[0] < 0.2
    assert rate[5] == pytest.approx(0.55)
    assert rate[10:] == pytest.approx([1.0] * 91)
    assert rates(schedule="constant", warmup=0.0) == pytest.approx([1.0] * 101)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_weight_decay_leaves_gamma_beta_and_biases_alone(optimizer):
    model = nested_net()
    compile_stage(
        model,
        Stage(train="everything", epochs=1, learning_rate=0.1, optimizer=optimizer, weight_decay=0.5),
        3,
    )
    model.optimizer.build(model.trainable_variables)
    decayed = {
        v.path.split("/")[-1] for v in model.trainable_variables if model.optimizer._use_weight_decay(v)
    }
    assert decayed == {"kernel"}


def test_the_best_epoch_is_kept_and_not_the_last():
    losses, weights = [], []

    def log(epoch, metrics):
        losses.append(metrics["validation/loss"])
        weights.append(subject.model.get_weights())

    subject = trainee()
    stage = Stage(train="everything", epochs=6, learning_rate=6.0, schedule="constant")
    fit(stage, Retrain(), subject, log=log)
    best = int(np.argmin(losses))
    assert best != 5, "the test needs a rate at which the last epoch is not the best"
    assert all(np.array_equal(a, b) for a, b in zip(weights[best], subject.model.get_weights(), strict=True))


def test_early_stopping_waits_as_long_as_it_is_told():
    losses = []
    stage = Stage(train="everything", epochs=30, learning_rate=2.0, schedule="constant", early_stopping=2)
    fit(stage, Retrain(), log=lambda epoch, metrics: losses.append(metrics["validation/loss"]))
    assert len(losses) < 30
    assert len(losses) - 1 - int(np.argmin(losses)) == 2


def test_a_nan_stops_at_its_step_and_keeps_the_last_good_weights():
    x = images(48)
    x[40] = np.nan  # in the third batch
    subject = trainee()
    clean = material()
    fit(Stage(train="everything", epochs=1, learning_rate=0.05), subject=subject, data=clean)
    kept = subject.model.get_weights()
    poisoned = material(batches(x=x))
    with pytest.raises(DivergedError) as error:
        fit(Stage(train="everything", epochs=2, learning_rate=0.05), subject=subject, data=poisoned)
    assert str(error.value) == (
        "stage 1 of 1: the loss became nan at step 3 of 3 in epoch 1; lower the learning rate of this stage "
        "(frozen statistics need a lower one than batch statistics), or lengthen its warmup"
    )
    assert all(np.array_equal(a, b) for a, b in zip(kept, subject.model.get_weights(), strict=True))


@pytest.mark.parametrize(("spoiled", "first"), [(None, 0), (1, 1)])
def test_a_divergence_names_the_first_site_that_left_the_finite_numbers(spoiled, first):
    """Where the images are not numbers it is the first; where a kernel is not, the one behind it."""
    subject, x = trainee(), images(48)
    if spoiled is None:
        x[0] = np.nan
    else:
        kernels = [layer for layer in subject.backbone.layers if "conv" in layer.name]
        kernels[spoiled].kernel.assign(np.full(kernels[spoiled].kernel.shape, np.nan))
    with pytest.raises(DivergedError) as error:
        fit(
            Stage(train="everything", epochs=1, learning_rate=0.05),
            Retrain(),
            subject,
            material(batches(x=x)),
        )
    path = [site.path for site in subject.sites if site.calls][first]
    assert str(error.value).endswith(
        f"; the first BN site whose running statistics are not finite is {path} "
        f"({first + 1} of {len(subject.sites)}): look at what lies in front of it"
    )


def test_a_loss_a_hundred_times_that_of_guessing_is_a_divergence():
    from finetune.callbacks import DivergenceWatch

    watch = DivergenceWatch("stage 1 of 1", steps=3, classes=10)
    watch.on_epoch_begin(0)
    watch.on_train_batch_end(0, {"loss": 50.0})
    with pytest.raises(DivergedError, match=r"reached 300 at step 2 of 3 in epoch 1"):
        watch.on_train_batch_end(1, {"loss": 300.0})


def test_a_network_that_falls_back_to_guessing_has_diverged_and_keeps_what_it_began_with():
    subject = trainee()
    before = subject.model.get_weights()
    stage = Stage(train="everything", epochs=1, learning_rate=1e-9)
    with pytest.raises(DivergedError) as error:
        fit(stage, subject=subject, before=0.5)
    assert "the network collapsed: its lowest validation loss is 1." in str(error.value)
    assert "guessing has 1.099, and it began at 0.500; lower the learning rate" in str(error.value)
    assert all(np.array_equal(a, b) for a, b in zip(before, subject.model.get_weights(), strict=True))


@pytest.mark.parametrize(("before", "after"), [(2.2, 2.3), (0.5, 1.9), (0.5, 0.6), (2.3, 0.1)])
def test_neither_knowing_nothing_yet_nor_getting_worse_is_a_collapse(before, after):
    refuse_collapse("stage 2 of 2", before, after, guessing=np.log(10))


def test_metrics_of_every_epoch_are_logged_under_their_names():
    seen = {}
    stage = Stage(train="head", epochs=2, learning_rate=0.1)
    fit(stage, log=lambda epoch, metrics: seen.update({epoch: metrics}))
    assert list(seen) == [1, 2]
    assert set(seen[1]) == {
        "train/loss",
        "train/accuracy",
        "validation/loss",
        "validation/accuracy",
        "learning_rate",
    }


def test_the_same_seed_trains_bit_equal_weights():
    def trained():
        subject = trainee()
        keras.utils.set_random_seed(3)
        fit(Stage(train="everything", epochs=2, learning_rate=0.05), Retrain(), subject)
        return subject.model.get_weights()

    assert all(a.tobytes() == b.tobytes() for a, b in zip(trained(), trained(), strict=True))


FOUR = Stage(train="everything", epochs=4, learning_rate=0.05)


def fit_in_two_parts(policy, subject, stage=FOUR, log=lambda epoch, metrics: None):
    """As a run does where the policy freezes the last epochs; readings between the parts and after them."""
    rest = (stage, "stage 1 of 1", material(), Progress(), log)
    fit_stage(subject, policy, *rest, epochs=following_epochs(policy, [stage], 0))
    between = read(subject.sites), [np.array(v) for v in subject.model.trainable_weights]
    outcome = fit_frozen_epochs(subject, policy, *rest)
    return between, outcome


@pytest.mark.parametrize("policy", [Retrain, Statistics])
def test_in_frozen_epochs_weights_train_and_no_statistics_follow(policy):
    subject = trainee()
    (before, weights), _ = fit_in_two_parts(policy(freeze_last_epochs=1), subject)
    after = read(subject.sites)
    assert all(a.statistics.identical(b.statistics) for a, b in zip(before, after, strict=True))
    moved = [not np.array_equal(a, b) for a, b in zip(weights, subject.model.trainable_weights, strict=True)]
    assert any(moved)
    gammas = [np.array_equal(a.affine[0], b.affine[0]) for a, b in zip(before, after, strict=True)]
    assert gammas == [policy is Statistics] * 3


def test_frozen_epochs_go_on_with_the_schedule_and_the_count():
    whole, parted = {}, {}
    fit(FOUR, Retrain(), log=lambda epoch, metrics: whole.update({epoch: metrics["learning_rate"]}))
    fit_in_two_parts(
        Retrain(freeze_last_epochs=2),
        trainee(),
        log=lambda epoch, metrics: parted.update({epoch: metrics["learning_rate"]}),
    )
    assert list(parted) == [1, 2, 3, 4]
    assert parted == pytest.approx(whole)


def test_epochs_that_early_stopping_left_out_count_for_the_schedule():
    rates = {}
    hot = Stage(train="everything", epochs=12, learning_rate=2.0, early_stopping=1)
    fit_in_two_parts(
        Retrain(freeze_last_epochs=1),
        trainee(),
        hot,
        log=lambda epoch, metrics: rates.update({epoch: metrics["learning_rate"]}),
    )
    assert len(rates) < 12, "the test needs a rate at which the first part stops early"
    assert max(rates) == 12
    assert rates[12] < 0.05


@pytest.mark.parametrize(("number", "epochs"), [(0, 4), (1, 2)])
def test_only_the_last_stage_has_frozen_epochs(number, epochs):
    assert following_epochs(Retrain(freeze_last_epochs=2), [FOUR, FOUR], number) == epochs


def averaged(stage, policy):
    subject = trainee()
    outcome = fit_stage(subject, policy, stage, "stage 1 of 1", material(), Progress(), lambda *_: None)
    loss = float(subject.model.evaluate(batches(), verbose=0, return_dict=True)["loss"])
    return outcome, loss


def test_a_stage_with_an_average_ends_with_it_or_with_its_best_epoch_and_says_which():
    stage = Stage(train="everything", epochs=2, learning_rate=0.05, ema=0.5)
    outcome, loss = averaged(stage, Retrain())
    (note,) = outcome.notes
    assert note.startswith("stage 1 of 1: the average of the weights has validation loss ")
    assert note.endswith(("; kept", "; not kept: the weights are those of the best epoch"))
    assert outcome.validation_loss == pytest.approx(loss, abs=1e-5)


def test_an_average_of_the_first_steps_alone_is_not_kept():
    """With a share of .999 it hardly leaves the weights of the first step."""
    stage = Stage(train="everything", epochs=4, learning_rate=0.2, schedule="constant", warmup=0.0, ema=0.999)
    outcome, loss = averaged(stage, Freeze())
    assert outcome.notes[0].endswith("; not kept: the weights are those of the best epoch")
    assert outcome.validation_loss == pytest.approx(loss, abs=1e-5)


def test_the_step_of_a_stage_is_traced_once(monkeypatch):
    step, traced = keras.Model.train_step, []
    monkeypatch.setattr(keras.Model, "train_step", lambda self, data: traced.append(1) or step(self, data))
    fit(Stage(train="everything", epochs=2, learning_rate=0.1), Retrain())
    assert traced == [1]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_compiled_stage_has_counted_nothing_yet(optimizer):
    subject = trainee()
    compile_stage(
        subject.model, Stage(train="everything", epochs=1, learning_rate=0.1, optimizer=optimizer), 3
    )
    assert int(subject.model.optimizer.iterations.numpy()) == 0
    assert all(not np.any(variable) for metric in subject.model.metrics for variable in metric.variables)


def test_stale_statistics_are_not_taken_for_a_collapse():
    """Guessing is what validation shows while the statistics are those from before, whatever the weights learned."""
    stage = Stage(train="everything", epochs=1, learning_rate=1e-6)
    for policy in (Freeze(), Retrain(momentum=0.1)):
        with pytest.raises(DivergedError, match="collapsed"):
            fit(stage, policy, before=0.1)
    fit(stage, Retrain(momentum=0.999), before=0.1)
