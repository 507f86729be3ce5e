"""Exact statistics against the float64 NumPy network, and the laws that they obey at every site."""

import threading
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from finetune.batchnorm.layerwise import layerwise
from finetune.batchnorm.live_model import LiveModel
from finetune.batchnorm.measure import measure, residual
from finetune.batchnorm.moments import PopulationMoments
from finetune.batchnorm.population import input_moments
from finetune.batchnorm.shift import distance
from finetune.batchnorm.sites import find_sites
from finetune.batchnorm.tracing import UncutError, trace
from tests.nets import NETS, NumpyNet, functional_net, images, photographs

SITES = ("bn_1", "bn_2", "bn_3")


def exact_statistics(model, x):
    """In float64, site after site: the moments of its input once those before it have theirs."""
    net = NumpyNet(model)
    for name in SITES:
        values = net.site_inputs(x, normalise_with_batch=False)[name]
        net.values[f"{name}/moving_mean"], net.values[f"{name}/moving_variance"] = (
            values.mean(0),
            values.var(0),
        )
    return [(net.values[f"{name}/moving_mean"], net.values[f"{name}/moving_variance"]) for name in SITES]


def worst(statistics, expected):
    """Largest distance in standard deviations and relative variance."""
    return max(
        max(np.max(np.abs(s.mean - mean) / np.sqrt(variance)), np.max(np.abs(s.variance / variance - 1)))
        for s, (mean, variance) in zip(statistics, expected, strict=True)
    )


def split(x, *sizes):
    """Batches of these sizes and one of what is left."""
    return np.split(x, np.cumsum(sizes))


def measured(model, batches, **options):
    """The statistics that `measure` stores; the model gets its own back."""
    sites = find_sites(model, batches[0][:1])
    before = [site.statistics for site in sites if site.calls]
    measure(model, sites, lambda: batches, **options)
    after = [site.statistics for site in sites if site.calls]
    for site, earlier in zip((s for s in sites if s.calls), before, strict=True):
        site.store(earlier)
    return after


def pairs(statistics):
    return [(s.mean.astype(np.float64), s.variance.astype(np.float64)) for s in statistics]


@pytest.mark.parametrize("seed", [1, 3, 4, 5])
@pytest.mark.parametrize(("precise", "tolerance"), [(True, 1e-6), (False, 2e-5)])
def test_equals_the_float64_network_at_every_site(seed, precise, tolerance):
    model, x = functional_net(seed), photographs(48)
    stored = measured(model, split(x, 16, 25), precise=precise)
    assert worst(stored, exact_statistics(model, x)) < tolerance


def test_where_a_channel_lies_far_from_zero_the_float32_of_the_network_itself_shows():
    """What the last site of this net sees has a mean of 19 standard deviations: no reduction gives back what the
    layers in front of it rounded away."""
    model, x = functional_net(0), photographs(48)
    expected = exact_statistics(model, x)
    far = max(np.max(np.abs(mean) / np.sqrt(variance)) for mean, variance in expected)
    assert far > 15
    assert worst(measured(model, split(x, 16, 25), precise=True), expected) < 1e-6 * far


@pytest.mark.parametrize("kind", NETS)
def test_how_the_images_are_batched_and_ordered_changes_nothing_at_any_site(kind):
    model, x = NETS[kind](), photographs(48)
    x[:24] += 1.5  # as class-sorted data are: the batches differ
    reference = pairs(measured(model, [x]))
    assert len(reference) >= 2
    for batches in (split(x, 24), split(x, 1, 8, 20), [x[::-1]], split(x[::-1], 40)):
        assert worst(measured(model, batches), reference) < 2e-5


@given(cuts=st.lists(st.integers(1, 47), min_size=1, max_size=4, unique=True), seed=st.integers(0, 99))
@settings(max_examples=8)
def test_any_split_of_any_permutation_gives_the_same(cuts, seed):
    x = photographs(48)
    shuffled = x[np.random.default_rng(seed).permutation(len(x))]
    model = functional_net(seed)
    assert worst(measured(model, np.split(shuffled, sorted(cuts))), exact_statistics(model, x)) < 2e-5


def test_two_workers_with_unequal_shares_get_what_one_gets():
    x = photographs(48)
    x[:24] += 1.5
    shares, barrier, board = (x[:15], x[15:]), threading.Barrier(2), [None, None]

    def worker(rank, outcome):
        def combine(own):
            board[rank] = own
            barrier.wait()
            both = [PopulationMoments.pool(parts) for parts in zip(*board, strict=True)]
            barrier.wait()
            return both

        model, sites = models[rank]
        outcome[rank] = measure(model, sites, lambda: split(shares[rank], 9), combine=combine), sites

    # made beforehand: the seed of Keras is one for all threads
    models = [(model, find_sites(model, x[:1])) for model in (functional_net(), functional_net())]
    outcome = [None, None]
    threads = [threading.Thread(target=worker, args=(rank, outcome)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    expected = exact_statistics(functional_net(), x)
    for measurement, sites in outcome:
        assert measurement.images == 48
        assert worst([s.statistics for s in sites], expected) < 2e-5


@pytest.mark.parametrize("kind", NETS)
def test_cutting_the_network_and_one_run_a_site_agree(kind, monkeypatch):
    model, batches = NETS[kind](), split(photographs(40), 16)
    cut = pairs(measured(model, batches))
    monkeypatch.setattr(LiveModel, "graph", lambda *_: None)
    assert worst(measured(model, batches), cut) < 2e-5


@pytest.mark.parametrize("kind", NETS)
def test_the_residual_is_rounding_after_it_and_far_more_before(kind):
    model, x = NETS[kind](), photographs(48)
    sites = find_sites(model, x[:1])
    assert residual(model, sites, [x]) > 0.1
    measurement = measure(model, sites, lambda: split(x, 20))
    assert (measurement.images, measurement.kind, measurement.method) == (48, "plain", "layerwise")
    assert measurement.residual < 2e-5
    assert residual(model, sites, [x]) < 2e-5
    assert residual(model, sites, [photographs(48, loc=1.4)]) > 0.05


def test_measuring_twice_changes_no_bit(model, sites):
    batches = split(photographs(48), 20)
    measure(model, sites, lambda: batches)
    first = [site.statistics for site in sites]
    measure(model, sites, lambda: batches)
    assert all(site.statistics.identical(earlier) for site, earlier in zip(sites, first, strict=True))


def test_a_subset_of_the_sites_leaves_the_others_as_they_are(model, sites):
    x = photographs(48)
    others = [sites[0].statistics, sites[2].statistics]
    measure(model, sites[1:2], lambda: [x])
    assert sites[0].statistics.identical(others[0])
    assert sites[2].statistics.identical(others[1])
    seen = NumpyNet(model).site_inputs(x, normalise_with_batch=False)["bn_2"]
    assert worst([sites[1].statistics], [(seen.mean(0), seen.var(0))]) < 2e-5


def test_a_site_that_is_never_called_is_reported_and_not_counted():
    model, x = NETS["custom_layer"](), images(24)
    sites = find_sites(model, x[:1])
    idle = [site for site in sites if not site.calls]
    assert idle
    measure(model, sites, lambda: [x])
    assert all(site.statistics is not None for site in sites if site.calls)
    network = trace(model, [s for s in sites if s.calls], x).network
    assert len(network.dataflow.measured) == len(sites) - len(idle)


def test_beyond_the_memory_budget_activations_go_to_disk_and_change_nothing(model, sites):
    x = photographs(48)
    in_memory = measured(model, split(x, 20))
    network, epsilons = trace(model, sites, x).network, [s.epsilon for s in sites]

    def settle(site, moments, count):
        sites[site].store(moments.statistics())
        return 0.0

    largest = 16 * 6 * 6 * 6 * 4
    cost = layerwise(network, split(x, 16, 16), settle, memory=largest, epsilons=epsilons)
    assert 0 < cost.peak <= largest
    assert cost.spilled > 0
    assert worst([s.statistics for s in sites], pairs(in_memory)) < 2e-5


def test_a_batch_of_images_is_gone_when_the_next_one_is_read(model, sites):
    """Memory holds one batch beside what is kept between the sites, not two."""
    x, earlier, alive = photographs(48), [], []

    def batches():
        for start in (0, 16, 32):
            alive.append(sum(batch() is not None for batch in earlier))
            batch = x[start : start + 16].copy()
            earlier.append(weakref.ref(batch))
            yield batch
            del batch

    network, epsilons = trace(model, sites, x).network, [s.epsilon for s in sites]
    layerwise(network, batches(), lambda *_: 0.0, memory=10**9, epsilons=epsilons)
    assert alive == [0, 0, 0]


def test_parallel_calls_of_a_shared_site_are_pooled():
    shared = layers.BatchNormalization(name="shared")
    inputs = keras.Input((4,))
    first = layers.BatchNormalization(name="first")(inputs)
    joined = keras.ops.concatenate([shared(first), shared(first * 3 + 1)], axis=-1)
    model = keras.Model(inputs, layers.BatchNormalization(name="last")(joined))
    x = np.random.default_rng(0).normal(0.5, 2.0, (50, 4)).astype(np.float32)
    one, two, three = measured(model, split(x, 20))
    normalised = (x - x.mean(0, dtype=np.float64)) / np.sqrt(x.var(0, dtype=np.float64) + 1e-3)
    both = np.concatenate([normalised, normalised * 3 + 1])
    again = [(v - both.mean(0)) / np.sqrt(both.var(0) + 1e-3) for v in (normalised, normalised * 3 + 1)]
    last = np.concatenate(again, axis=1)
    expected = [(v.mean(0), v.var(0)) for v in (x.astype(np.float64), both, last)]
    assert worst([one, two, three], expected) < 2e-5


def looping_net():
    """One site called twice in series, a dense layer between, and an ordinary site behind."""
    keras.utils.set_random_seed(3)
    shared = layers.BatchNormalization(name="loop")
    inputs = keras.Input((4,))
    between = layers.ReLU()(layers.Dense(4, name="between")(shared(inputs)))
    return keras.Model(inputs, layers.BatchNormalization(name="behind")(shared(between)))


@pytest.mark.parametrize("cut", [True, False])
def test_a_site_that_feeds_itself_comes_to_its_fixed_point(cut, monkeypatch):
    if not cut:
        monkeypatch.setattr(LiveModel, "graph", lambda *_: None)
    model = looping_net()
    x = np.random.default_rng(0).normal(0.5, 2.0, (64, 4)).astype(np.float32)
    loop, behind = measured(model, split(x, 30))
    kernel, bias = (np.asarray(w, np.float64) for w in model.get_layer("between").get_weights())
    mean, variance = np.zeros(4), np.ones(4)
    for _ in range(500):
        first = (x - mean) / np.sqrt(variance + 1e-3)
        second = np.maximum(first @ kernel + bias, 0)
        both = np.concatenate([x, second])
        mean, variance = both.mean(0), both.var(0)
    out = (second - mean) / np.sqrt(variance + 1e-3)
    assert worst([loop, behind], [(mean, variance), (out.mean(0), out.var(0))]) < 2e-5


def test_one_pass_says_that_a_site_feeds_itself_and_is_off():
    model, said = looping_net(), []
    x = np.random.default_rng(0).normal(0.5, 2.0, (256, 4)).astype(np.float32)
    right = pairs(measured(model, [x]))
    off = measured(model, [x], method="one_pass", warn=said.append)
    assert worst(off, right) > 0.05
    assert [words for words in said if "feeds itself" in words and "loop" in words]


def test_one_pass_says_nothing_of_a_shared_site_whose_calls_are_parallel():
    shared, inputs, said = layers.BatchNormalization(name="shared"), keras.Input((4,)), []
    model = keras.Model(inputs, keras.ops.concatenate([shared(inputs), shared(inputs * 3 + 1)]))
    x = np.random.default_rng(0).normal(size=(128, 4)).astype(np.float32)
    measured(model, [x], method="one_pass", warn=said.append)
    assert said == []


@pytest.mark.parametrize("rank", [2, 3, 4, 5])
@pytest.mark.parametrize("axis", ["first", "last"])
def test_every_rank_and_axis_is_measured_as_numpy_does(rank, axis):
    shape = (3, 4, 2, 5)[: rank - 1]
    place = 1 if axis == "first" else rank - 1
    inputs = keras.Input(shape)
    hidden = layers.ReLU()(layers.BatchNormalization(axis=place)(inputs))
    model = keras.Model(inputs, layers.BatchNormalization(axis=place)(hidden * 2 - 0.3))
    x = np.random.default_rng(0).normal(0.7, 1.5, (40, *shape)).astype(np.float32)
    stored = measured(model, split(x, 17))
    axes = tuple(a for a in range(rank) if a != place)
    exact_x = x.astype(np.float64)
    mean, variance = exact_x.mean(axes, keepdims=True), exact_x.var(axes, keepdims=True)
    behind = np.maximum((exact_x - mean) / np.sqrt(variance + 1e-3), 0) * 2 - 0.3
    assert worst(stored, [(v.mean(axes), v.var(axes)) for v in (exact_x, behind)]) < 2e-5


def test_masked_steps_do_not_count_in_depth():
    inputs = keras.Input((6, 2))
    hidden = layers.BatchNormalization()(layers.Masking(mask_value=-9.0)(inputs))
    model = keras.Model(inputs, layers.BatchNormalization()(layers.ReLU()(hidden)))
    x = np.random.default_rng(0).normal(size=(20, 6, 2)).astype(np.float32)
    x[:, 4:] = -9.0
    stored = measured(model, split(x, 7))
    valid = x[:, :4].reshape(-1, 2).astype(np.float64)
    behind = np.maximum((valid - valid.mean(0)) / np.sqrt(valid.var(0) + 1e-3), 0)
    assert worst(stored, [(v.mean(0), v.var(0)) for v in (valid, behind)]) < 2e-5


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_is_measured_in_the_precision_that_is_deployed(precision):
    keras.mixed_precision.set_dtype_policy(precision)
    try:
        model = functional_net()
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    x = photographs(48)
    sites = find_sites(model, x[:1])
    assert measure(model, sites, lambda: split(x, 20)).residual < 1e-3
    full = functional_net()
    assert worst([s.statistics for s in sites], exact_statistics(full, x)) > 1e-4


def test_dropout_stays_off(model):
    batches = split(images(48), 20)
    once, twice = measured(model, batches), measured(model, batches)
    assert all(a.identical(b) for a, b in zip(once, twice, strict=True))


def test_a_site_far_from_zero_is_measured_again_in_float64():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.BatchNormalization()(layers.BatchNormalization()(inputs) * 1e-2 + 30))
    random = np.random.default_rng(0)
    x = (random.normal(0, 0.1, (4096, 3)) + 1e4).astype(np.float32)
    exactly = x.astype(np.float64)
    stored = measured(model, split(x, 1000))
    assert np.max(np.abs(stored[0].variance / exactly.var(0) - 1)) < 1e-6
    moments, _ = input_moments(model, find_sites(model, x[:1]), split(x, 1000))
    assert np.max(np.abs(moments[0].variance / exactly.var(0) - 1)) < 1e-6


def test_renorm_sites_are_refused_by_name(model, sites):
    sites[1].layer.renorm = True
    with pytest.raises(ValueError, match=r"renorm sites .* cannot be measured: bn_2"):
        measure(model, sites, lambda: [images(16)])


@pytest.mark.parametrize("method", ["layerwise", "one_pass"])
def test_an_empty_calibration_set_is_refused(model, sites, method):
    with pytest.raises(ValueError, match="calibration set is empty"):
        measure(model, sites, list, method=method)


@pytest.mark.parametrize("cut", [True, False])
def test_data_that_raise_midway_leave_everything_as_it_was(model, sites, cut, monkeypatch):
    if not cut:
        monkeypatch.setattr(LiveModel, "graph", lambda *_: None)
    before, opened = [site.statistics for site in sites], []

    def broken():
        opened.append(1)
        yield images(16)
        # the second opening: under one run a site, the first site has been stored by then
        if len(opened) > (1 if cut else 3):
            raise OSError("the disk went away")

    def open_batches():
        return broken() if not cut else _raising_late()

    def _raising_late():
        yield images(16)
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="went away"):
        measure(model, sites, open_batches)
    assert all(s.statistics.identical(b) for s, b in zip(sites, before, strict=True))
    assert not any("call" in vars(site.layer) for site in sites)


@keras.saving.register_keras_serializable("tests")
class InsideAFunction(layers.Layer):
    """A site behind a `tf.function` of its own: the outer graph shows one opaque call."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.bn = layers.BatchNormalization()

    def build(self, shape):
        self.bn.build(shape)
        self.compiled = tf.function(lambda x: keras.ops.relu(self.bn(x, training=False)))

    def call(self, inputs):
        return self.compiled(inputs)


def test_a_site_inside_a_function_of_its_own_is_measured_run_by_run():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, InsideAFunction()(InsideAFunction()(inputs) * 2 - 0.3))
    x = np.random.default_rng(0).normal(0.7, 1.5, (40, 3)).astype(np.float32)
    sites = find_sites(model, x[:1])
    with pytest.raises(UncutError):
        trace(model, sites, x)
    measure(model, sites, lambda: split(x, 17))
    first = (
        np.maximum((x - x.mean(0, dtype=np.float64)) / np.sqrt(x.var(0, dtype=np.float64) + 1e-3), 0) * 2
        - 0.3
    )
    expected = [(x.mean(0, dtype=np.float64), x.var(0, dtype=np.float64)), (first.mean(0), first.var(0))]
    assert worst([site.statistics for site in sites], expected) < 2e-5
    assert worst(measured(model, [x], method="one_pass"), expected) < 2e-5
    assert not tf.config.functions_run_eagerly()


def test_a_prior_is_exact_for_the_finished_network_too(model, sites):
    x, before = photographs(48), [site.statistics for site in sites]
    measure(model, sites, lambda: [x], prior=16)
    seen = NumpyNet(model).site_inputs(x, normalise_with_batch=False)
    for name, site, earlier in zip(SITES, sites, before, strict=True):
        values = seen[name]
        mean = 0.25 * earlier.mean + 0.75 * values.mean(0)
        variance = 0.25 * earlier.variance + 0.75 * values.var(0)
        assert worst([site.statistics], [(mean, variance)]) < 2e-5
    assert distance(sites[0].statistics, before[0], sites[0].epsilon) > 0.01
