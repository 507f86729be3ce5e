"""Every assumption about Keras that the toolkit stands on. When one of these fails, Keras changed: start here."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from finetune.batchnorm.sites import find_sites
from tests.nets import (
    compile_and_fit,
    functional_net,
    images,
    labels,
    nested_net,
    with_baked_training_flag,
)


def statistics(layer):
    return np.array(layer.moving_mean), np.array(layer.moving_variance)


def moved(layer, before) -> bool:
    return any((a != b).any() for a, b in zip(statistics(layer), before, strict=True))


def test_fit_overrides_a_baked_training_flag():
    """keras#20285: `base(x, training=False)` in a functional model does not keep the statistics."""
    model, site = with_baked_training_flag()
    before = statistics(site)
    compile_and_fit(model)
    assert moved(site, before)


def test_a_frozen_site_runs_in_inference_mode_even_with_training_true():
    site = functional_net().get_layer("bn_1")
    site.trainable = False
    before = statistics(site)
    x = np.random.default_rng(0).normal(3, 2, (4, 6, 6, 6)).astype(np.float32)
    np.testing.assert_array_equal(site(x, training=True), site(x, training=False))
    assert not moved(site, before)


@pytest.mark.parametrize(("flag", "value"), [("trainable", False), ("momentum", 1.0)])
def test_what_would_hold_the_statistics_has_no_effect_before_the_next_compile(flag, value):
    model = functional_net()
    compile_and_fit(model)
    site = model.get_layer("bn_1")
    setattr(site, flag, value)
    before = statistics(site)
    model.fit(images(), labels(), batch_size=16, verbose=0)
    assert moved(site, before)
    before = statistics(site)
    compile_and_fit(model)
    assert not moved(site, before)


def test_another_batch_size_is_a_new_trace_and_takes_the_new_flags():
    """Why the trap above shows itself so rarely in a notebook, and then surprises in production."""
    model = functional_net()
    compile_and_fit(model)
    site = model.get_layer("bn_1")
    site.trainable = False
    before = statistics(site)
    model.fit(images(), labels(), batch_size=24, verbose=0)
    assert not moved(site, before)


def test_unfreezing_a_frozen_model_sets_every_site_trainable_again():
    model = nested_net()
    sites = find_sites(model, images(1))
    model.trainable = False
    model.trainable = True
    assert all(site.layer.trainable for site in sites)


@pytest.mark.parametrize("value", [True, False])
def test_setting_trainable_to_what_it_is_does_not_reach_the_layers_below(value):
    """On TensorFlow an assignment of the value that is there is skipped, and with it the recursion."""
    model = nested_net()
    sites = find_sites(model, images(1))
    model.trainable = value
    for site in sites:
        site.layer.trainable = not value
    model.trainable = value
    assert [site.layer.trainable for site in sites] == [not value] * 3


def test_frozen_gamma_and_beta_leave_the_statistics_moving():
    model = functional_net()
    site = model.get_layer("bn_1")
    site.gamma.trainable = site.beta.trainable = False
    before, gamma = statistics(site), np.array(site.gamma)
    compile_and_fit(model)
    assert moved(site, before)
    np.testing.assert_array_equal(site.gamma, gamma)


@pytest.mark.parametrize("shape", [(64, 5), (8, 4, 4, 5)])
def test_the_running_variance_is_the_biased_one(shape):
    site = layers.BatchNormalization(momentum=0.0)
    x = np.random.default_rng(0).normal(2, 3, shape).astype(np.float32)
    site(x, training=True)
    flat = x.reshape(-1, 5).astype(np.float64)
    np.testing.assert_allclose(site.moving_variance, flat.var(0), rtol=1e-5)
    assert abs(flat.var(0, ddof=1) / flat.var(0) - 1).min() > 1e-3


def test_momentum_is_the_share_of_the_old_value_that_is_kept():
    site = layers.BatchNormalization(momentum=0.8)
    x = np.full((4, 2), 10.0, np.float32)
    site(x, training=True)
    np.testing.assert_allclose(site.moving_mean, 0.2 * 10.0, rtol=1e-6)


def test_a_call_without_a_flag_is_inference():
    model = functional_net()
    before = statistics(model.get_layer("bn_1"))
    np.testing.assert_array_equal(model(images(4)), model(images(4), training=False))
    assert not moved(model.get_layer("bn_1"), before)


def test_a_call_with_training_true_moves_the_statistics():
    model = functional_net()
    before = statistics(model.get_layer("bn_1"))
    model(images(4), training=True)
    assert moved(model.get_layer("bn_1"), before)


def test_a_subclassed_model_without_a_training_argument_trains_in_inference_mode():
    class Forgetful(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv, self.bn, self.pool = layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Flatten()
            self.out = layers.Dense(3, activation="softmax")

        def call(self, inputs):
            return self.out(self.pool(self.bn(self.conv(inputs), training=False)))

    model = Forgetful()
    model(images(1))
    before = statistics(model.bn)
    compile_and_fit(model)
    assert not moved(model.bn, before)


def test_a_walk_over_layers_misses_nested_sites():
    model = nested_net()
    assert not [la for la in model.layers if isinstance(la, layers.BatchNormalization)]
    assert len(find_sites(model, images(1))) == 3


def test_an_instance_call_is_used_and_can_be_taken_away():
    layer = layers.BatchNormalization()
    x = np.random.default_rng(0).normal(2, 3, (4, 3)).astype(np.float32)
    expected = np.array(layer(x))
    layer.call = lambda inputs, training=None, mask=None: inputs * 0
    assert not np.array(layer(x)).any()
    del layer.call
    np.testing.assert_array_equal(layer(x), expected)


def test_get_and_set_weights_carry_the_running_statistics():
    source, target = functional_net(0), functional_net(1)
    target.set_weights(source.get_weights())
    np.testing.assert_array_equal(
        target.get_layer("bn_2").moving_variance, source.get_layer("bn_2").moving_variance
    )


def test_half_precision_policies_keep_statistics_in_float32():
    site = layers.BatchNormalization(dtype="mixed_float16")
    outputs = site(np.ones((2, 3), np.float32))
    assert keras.backend.standardize_dtype(outputs.dtype) == "float16"
    assert keras.backend.standardize_dtype(site.moving_mean.dtype) == "float32"


def times_traced(model, monkeypatch, prepare):
    """How often a short `fit` runs the Python of a step: once for each time that TensorFlow traces it."""
    step, traced = keras.Model.train_step, []
    monkeypatch.setattr(keras.Model, "train_step", lambda self, data: traced.append(1) or step(self, data))
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    prepare(model)
    model.fit(images(32), labels(32), batch_size=16, verbose=0)
    return len(traced)


def test_a_step_that_makes_variables_is_traced_twice(model, monkeypatch):
    assert times_traced(model, monkeypatch, lambda model: None) == 2


def test_computing_metrics_once_makes_their_variables(model, monkeypatch):
    def prepare(model):
        model.optimizer.build(model.trainable_variables)
        model.compute_metrics(None, labels(1), np.array(model(images(1))))
        model.reset_metrics()

    assert times_traced(model, monkeypatch, prepare) == 1


def test_fit_opens_its_dataset_twice_an_epoch_where_the_number_of_batches_is_known():
    """`Orders` counts by it, so that a training that is gone on with sees the order that would have come next."""

    def shuffled():
        return tf.data.Dataset.range(8).shuffle(8, seed=1, reshuffle_each_iteration=True).batch(4)

    def pairs(places):
        return tf.cast(places[:, None], tf.float32), tf.cast(places % 2, tf.int32)

    def order(dataset):
        return [batch.tolist() for batch in dataset.as_numpy_iterator()]

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)
    model.compute_metrics(None, np.zeros(1, np.int32), np.full((1, 2), 0.5, np.float32))
    for drawn, unknown in ((6, False), (3, True)):
        fed, alone = shuffled(), shuffled()
        mapped = fed.map(pairs)
        model.fit(mapped.filter(lambda x, y: True) if unknown else mapped, epochs=3, verbose=0, shuffle=False)
        # opening it is enough: nothing needs to be read
        for _ in range(drawn):
            iter(alone)
        assert order(fed) == order(alone)


def drawn_batches():
    """In a new order, and with new random numbers, every time that they are read."""
    places = tf.data.Dataset.range(12).shuffle(12, seed=1, reshuffle_each_iteration=True).batch(2)
    seeds = tf.data.Dataset.random(seed=2, rerandomize_each_iteration=True).batch(2)

    def pairs(places, seed):
        noise = tf.random.stateless_uniform(tf.shape(places), seed)
        return tf.stack([tf.cast(places, tf.float32), noise], 1), tf.cast(places % 2, tf.int32)

    return tf.data.Dataset.zip(places, seeds).map(pairs).prefetch(tf.data.AUTOTUNE)


@pytest.mark.parametrize("skipped", [1, 5])
def test_batches_that_are_skipped_have_drawn_their_share(skipped):
    """An epoch that was broken off goes on behind them, and the epochs after it are those that would have come."""

    def read(dataset):
        return [x.tolist() for x, _ in dataset.as_numpy_iterator()]

    whole, broken = drawn_batches(), drawn_batches()
    epochs = [read(whole) for _ in range(3)]
    iter(broken)
    rest = broken.skip(skipped)
    assert int(rest.cardinality()) == 6 - skipped
    assert read(rest) == epochs[1][skipped:]
    assert read(broken) == epochs[2]
    assert epochs[0] != epochs[1]


def test_fit_opens_what_a_dataset_has_left_as_often_as_the_whole():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    fed, alone = drawn_batches(), drawn_batches()
    model.fit(fed.skip(4), verbose=0, shuffle=False)
    for _ in range(2):
        iter(alone)
    assert next(iter(fed))[0].numpy().tolist() == next(iter(alone))[0].numpy().tolist()


class Counting(keras.callbacks.Callback):
    """Notes what the metrics hold at every turn, and puts something back where an epoch begins."""

    def __init__(self, put_back=None):
        super().__init__()
        self.held, self.put_back = {}, put_back

    def note(self, turn):
        self.held[turn] = [np.array(variable) for variable in self.model.metrics_variables]

    def on_epoch_begin(self, epoch, logs=None):
        self.note("begin")
        for variable, value in zip(self.model.metrics_variables, self.put_back or [], strict=False):
            variable.assign(value)

    def on_train_batch_end(self, batch, logs=None):
        self.note("batch")

    def on_test_begin(self, logs=None):
        self.note("test")


def test_metrics_can_be_put_back_when_an_epoch_begins_and_read_until_its_validation_begins():
    """And so the losses of an epoch that was broken off are those of all its batches."""
    x, y = np.arange(12, dtype=np.float32).reshape(6, 2), np.arange(6, dtype=np.int32) % 2
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, activation="softmax")])
    # a rate of 0: both halves are measured under the same weights
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", metrics=["accuracy"])

    def fitted(part, counting):
        data = tf.data.Dataset.from_tensor_slices((x[part], y[part])).batch(2)
        return model.fit(data, validation_data=data, callbacks=[counting], verbose=0).history["loss"]

    whole, first = Counting(), Counting()
    loss = fitted(slice(None), whole)
    fitted(slice(0, 2), first)
    second = Counting(put_back=first.held["batch"])
    assert fitted(slice(2, None), second) == loss
    assert not any(value.any() for value in whole.held["begin"])
    for held in (whole.held["test"], second.held["batch"], second.held["test"]):
        np.testing.assert_array_equal(held, whole.held["batch"])


def test_a_schedule_counts_batches_under_gradient_accumulation():
    """And not steps: it is not to be shortened. `iterations` counts steps, and is no variable then."""
    schedule = keras.optimizers.schedules.PolynomialDecay(1.0, decay_steps=4, end_learning_rate=0.0)
    optimizer = keras.optimizers.SGD(schedule, gradient_accumulation_steps=2)
    weight = keras.Variable(np.zeros(1, np.float32))
    optimizer.build([weight])
    rates = []
    for _ in range(4):
        optimizer.apply([np.ones(1, np.float32)], [weight])
        rates.append(float(optimizer.learning_rate))
    assert rates == [0.75, 0.5, 0.25, 0.0]
    assert int(optimizer.iterations) == 2
    # the two steps were made at the rates that the second and the fourth batch met
    np.testing.assert_allclose(np.asarray(weight), -(0.75 + 0.25), atol=1e-6)


def test_an_optimizer_asks_itself_for_every_step_and_knows_the_place_of_a_variable():
    """Rates by depth stand on it: the object's own `update_step` is called, with the variable of TensorFlow."""
    optimizer, places = keras.optimizers.SGD(1.0), []
    variables = [keras.Variable(np.zeros(1, np.float32)) for _ in range(2)]
    optimizer.build(variables)
    whole = optimizer.update_step

    def noted(gradient, variable, rate):
        places.append(optimizer._get_variable_index(variable))
        whole(gradient, variable, rate * 0.5)

    optimizer.update_step = noted
    optimizer.apply([np.ones(1, np.float32)] * 2, variables)
    assert places == [0, 1]
    assert [float(np.asarray(variable)[0]) for variable in variables] == [-0.5, -0.5]


def test_a_stateless_scope_computes_on_given_weights_and_hands_back_what_would_have_changed(model):
    """What the replicas of a distributed step rest on: nothing of the model moves inside."""
    before = model.get_weights()
    doubled = [tf.convert_to_tensor(variable.value) * 2.0 for variable in model.trainable_variables]
    pairs = list(zip(model.trainable_variables, doubled, strict=True))
    with keras.StatelessScope(pairs) as scope:
        inside = np.array(model(images(8), training=True))
    for kept, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, now)
    changed = {v.path for v in model.non_trainable_variables if scope.get_current_value(v) is not None}
    assert {path for path in changed if "moving" in path} == {
        f"bn_{n}/moving_{what}" for n in (1, 2, 3) for what in ("mean", "variance")
    }
    for variable, value in pairs:
        variable.assign(value)
    # the state of dropout's generator is as it was, so the masks are the same
    np.testing.assert_allclose(np.array(model(images(8), training=True)), inside, atol=1e-6)
    for variable in model.non_trainable_variables:
        if "moving" in variable.path:
            np.testing.assert_allclose(variable.numpy(), scope.get_current_value(variable), atol=1e-6)


def test_the_loss_in_a_stateless_scope_has_the_regularisation_of_the_given_weights():
    layer = keras.layers.Dense(2, activation="softmax", kernel_regularizer=keras.regularizers.L2(1.0))
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile("sgd", "sparse_categorical_crossentropy")
    zero = tf.zeros((3, 2))
    with tf.GradientTape() as tape:
        kernel = tf.ones((3, 2))
        tape.watch(kernel)
        with keras.StatelessScope([(layer.kernel, kernel)], collect_losses=True):
            y = np.zeros(4, np.int32)
            loss = model.compute_loss(None, y, model(np.ones((4, 3), np.float32), training=True), None)
    assert float(loss) == pytest.approx(6.0 + np.log(2), abs=1e-5)
    assert np.abs(tape.gradient(loss, kernel) - zero).min() > 1.0


def test_the_first_metric_of_a_compiled_model_is_its_loss_and_all_are_sums_that_add_up(model):
    """What evaluating in shares rests on: variables of shares, added, are those of the whole."""
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    whole = model.evaluate(images(48), labels(48), batch_size=16, verbose=0, return_dict=True)
    shares = []
    for part in (slice(0, 32), slice(32, 48)):
        model.evaluate(images(48)[part], labels(48)[part], batch_size=16, verbose=0)
        shares.append([float(v) for metric in model.metrics for v in metric.variables])
    assert model.metrics[0].name == "loss"
    assert len(shares[0]) == 4
    counted = [variable for metric in model.metrics for variable in metric.variables]
    for variable, total in zip(counted, np.sum(shares, axis=0), strict=True):
        variable.assign(total)
    found = {name: float(value) for name, value in model.get_metrics_result().items()}
    assert found == pytest.approx(whole, rel=1e-6)


def test_a_synchronised_site_outside_of_a_strategy_is_as_any_other():
    """So that sites may stay synchronised while a stage is evaluated."""
    x = np.random.default_rng(0).normal(2, 3, (8, 4, 4, 5)).astype(np.float32)
    plain, together = layers.BatchNormalization(), layers.BatchNormalization(synchronized=True)
    np.testing.assert_allclose(plain(x, training=True), together(x, training=True), atol=1e-5)
    np.testing.assert_allclose(plain.moving_variance, together.moving_variance, rtol=1e-5)


def test_fit_evaluate_and_predict_run_the_steps_that_a_subclass_makes():
    made = []

    class Own(keras.Model):
        def make_train_function(self, force=False):
            made.append("train")
            super().make_train_function(force)

        def make_test_function(self, force=False):
            made.append("test")
            super().make_test_function(force)

        def make_predict_function(self, force=False):
            made.append("predict")
            super().make_predict_function(force)

    inputs = keras.Input((3,))
    inner = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    model = Own(inputs=inner.input, outputs=inner.output)
    assert [id(v) for v in model.variables] == [id(v) for v in inner.variables]
    model.compile("sgd", "mse")
    x, y = np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)
    model.fit(x, y, validation_data=(x, y), verbose=0)
    model.predict(x, verbose=0)
    assert made == ["train", "test", "predict"]
    model.compile("sgd", "mse")
    assert (model.train_function, model.test_function, model.predict_function) == (None, None, None)


def test_a_schedule_reads_its_learning_rates_when_a_step_is_traced():
    schedule = keras.optimizers.schedules.CosineDecay(0.0, 10, warmup_target=0.5, warmup_steps=2)
    optimizer = keras.optimizers.SGD(schedule)
    assert optimizer._learning_rate is schedule
    constant = float(schedule(3))
    rate = keras.Variable(0.5)
    schedule.warmup_target = rate
    traced = tf.function(lambda step: schedule(step)).get_concrete_function(tf.TensorSpec([], tf.int32))
    schedule.warmup_target = 0.0
    assert float(traced(tf.constant(3))) == constant
    rate.assign(1.0)
    assert float(traced(tf.constant(3))) == 2 * constant
