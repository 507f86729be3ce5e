"""ONNX files: measured as an independent float64 network says, and copied with nothing else changed."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from finetune.batchnorm.matching import matched, matched_affine
from finetune.batchnorm.moments import PopulationMoments
from finetune.batchnorm.shift import distance
from finetune.formats.onnx_file import open_onnx
from tests.formats.onnx_nets import (
    CHANNELS,
    EPSILON,
    STATISTICS,
    STORED,
    NumpyNet,
    apart_from,
    images,
    in_constants,
    measured_in_float64,
    model,
    nodes,
    opened,
    save,
    weights,
)
from tests.formats.recalibrating import recalibrate

OUTPUT = "probabilities"


def stored(net):
    return np.concatenate([np.concatenate([s.statistics.mean, s.statistics.variance]) for s in net.sites])


@pytest.mark.parametrize("how", STORED)
def test_statistics_predictions_and_copy_are_right_however_the_file_stores_them(how, tmp_path):
    path = STORED[how](tmp_path / "old" / "model.onnx")
    before = {each.name: each.read_bytes() for each in path.parent.iterdir()}
    net, batch = open_onnx(path), images()
    assert [(site.path, site.channels, site.calls) for site in net.sites] == [
        (name, channels, 1) for name, channels in CHANNELS.items()
    ]
    np.testing.assert_allclose(net.predict({"image": batch})[OUTPUT], NumpyNet()(batch), atol=1e-5)
    recalibrate(net, batch)
    oracle = measured_in_float64(batch)
    assert max(apart_from(oracle, site) for site in net.sites) < 2e-5
    in_force = net.predict({"image": batch})[OUTPUT]
    np.testing.assert_allclose(in_force, oracle(batch), atol=1e-5)

    copy = tmp_path / "new" / "model.onnx"
    changed = net.write(copy)
    after = {each.name: each.read_bytes() for each in copy.parent.iterdir()}
    assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == before
    assert {name: len(content) for name, content in after.items()} == {k: len(v) for k, v in before.items()}
    assert changed == sum(a != b for name in before for a, b in zip(before[name], after[name], strict=True))
    assert without_statistics(copy) == without_statistics(path)
    np.testing.assert_array_equal(open_onnx(copy).predict({"image": batch})[OUTPUT], in_force)


def without_statistics(path):
    """The file as onnx reads it, every statistic put to zero."""
    net = onnx.load(path)
    for tensor in net.graph.initializer:
        if tensor.name in STATISTICS:
            tensor.CopyFrom(numpy_helper.from_array(np.zeros(tensor.dims, np.float32), tensor.name))
    for node in net.graph.node:
        if node.op_type == "Constant":
            del node.attribute[:]
    return net.SerializeToString(deterministic=True)


def test_external_data_are_patched_and_the_model_beside_them_stays_identical(tmp_path):
    path = STORED["external data"](tmp_path / "model.onnx")
    net = open_onnx(path)
    recalibrate(net, images())
    net.write(tmp_path / "new" / "other.onnx")
    assert (tmp_path / "new" / "other.onnx").read_bytes() == path.read_bytes()
    assert (tmp_path / "new" / "model.onnx.data").read_bytes() != (tmp_path / "model.onnx.data").read_bytes()


def test_only_the_bytes_of_statistics_differ(tmp_path):
    net = opened(tmp_path)
    before = net.path.read_bytes()
    spans = []
    for tensor in onnx.load(net.path).graph.initializer:
        if tensor.name in STATISTICS:
            assert before.count(tensor.raw_data) == 1
            start = before.index(tensor.raw_data)
            spans.append(range(start, start + len(tensor.raw_data)))
    recalibrate(net, images())
    net.write(tmp_path / "new.onnx")
    after = (tmp_path / "new.onnx").read_bytes()
    differ = {place for place, (a, b) in enumerate(zip(before, after, strict=True)) if a != b}
    assert differ
    assert differ <= {place for span in spans for place in span}


def test_neither_batches_nor_order_matter(tmp_path):
    net, batch = opened(tmp_path), images()
    recalibrate(net, batch)
    first = stored(net)
    for shuffled, size in ((batch, 7), (batch[np.random.default_rng(0).permutation(48)], 48)):
        recalibrate(net, shuffled, batch=size)
        np.testing.assert_allclose(stored(net), first, rtol=1e-5, atol=1e-6)


def test_measuring_twice_changes_no_byte(tmp_path):
    net, batch = opened(tmp_path), images()
    recalibrate(net, batch)
    net.write(tmp_path / "second.onnx")
    second = open_onnx(tmp_path / "second.onnx")
    recalibrate(second, batch)
    assert second.write(tmp_path / "third.onnx") == 0
    assert (tmp_path / "third.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()


@pytest.mark.parametrize("opset", [7, 9, 13, 14, 15, 18, 22])
def test_every_operator_set_gives_the_same(opset, tmp_path):
    net, batch = opened(tmp_path, opset=opset), images()
    recalibrate(net, batch)
    oracle = measured_in_float64(batch)
    assert max(apart_from(oracle, site) for site in net.sites) < 2e-5
    one_pass, _ = net.one_pass([{"image": batch}])
    assert residual(net, one_pass) < 1e-5


def residual(net, moments):
    return max(
        distance(site.statistics, each.statistics(), site.epsilon)
        for site, each in zip(net.sites, moments, strict=True)
    )


def test_one_pass_over_a_single_batch_is_exact_and_over_several_pools_them(tmp_path):
    net, batch = opened(tmp_path), images()
    before = stored(net)
    whole, count = net.one_pass([{"image": batch}])
    parts, _ = net.one_pass([{"image": batch[:20]}, {"image": batch[20:]}])
    np.testing.assert_array_equal(stored(net), before)
    recalibrate(net, batch)
    assert count == 48
    assert residual(net, whole) < 1e-5 < residual(net, parts)
    oracle = batch_by_batch(batch[:20], batch[20:])
    for moments, (mean, variance) in zip(parts, oracle, strict=True):
        np.testing.assert_allclose(moments.mean, mean, atol=1e-5)
        np.testing.assert_allclose(moments.variance, variance, rtol=1e-5)


def batch_by_batch(*batches):
    """Per site the pooled moments where each batch normalises with its own, by the law of total variance."""
    seen = []
    for batch in batches:
        oracle = measured_in_float64(batch)
        seen.append((len(batch), oracle.values))
    total = sum(count for count, _ in seen)
    for site in CHANNELS:
        mean = sum(count * v[f"{site}.running_mean"] for count, v in seen) / total
        square = sum(count * (v[f"{site}.running_var"] + v[f"{site}.running_mean"] ** 2) for count, v in seen)
        yield mean, square / total - mean**2


def test_matched_by_one_pass_is_matched_by_layers(tmp_path):
    """What a site hands on under an affine transform is what it hands on once matched statistics are in force."""
    net, batch = opened(tmp_path), images()
    reference, _ = net.one_pass([{"image": images(seed=5)}])
    before = [site.statistics for site in net.sites]
    affine = {
        site.path: matched_affine(site.statistics, r.statistics(), site.epsilon)
        for site, r in zip(net.sites, reference, strict=True)
    }
    by_one_pass, _ = net.one_pass([{"image": batch}], affine)
    for place, site in enumerate(net.sites):
        seen = inputs_of(net, batch)[place]
        now = PopulationMoments.of_batch(len(seen), seen.mean(0), seen.var(0))
        site.store(matched(before[place], reference[place].statistics(), now.statistics(), site.epsilon))
        np.testing.assert_allclose(by_one_pass[place].mean, now.mean, atol=1e-5)
        np.testing.assert_allclose(by_one_pass[place].variance, now.variance, rtol=1e-4)


def inputs_of(net, batch):
    """What each site is given under the statistics in force, (values, channels), in float64."""
    oracle, seen = NumpyNet(), {}
    for site in net.sites:
        oracle.values[f"{site.path}.running_mean"] = site.statistics.mean.astype(np.float64)
        oracle.values[f"{site.path}.running_var"] = site.statistics.variance.astype(np.float64)
    normalised = oracle.normalised
    oracle.normalised = lambda site, x, measure: (
        seen.setdefault(site, x.reshape(-1, x.shape[-1])),
        normalised(site, x, measure=measure),
    )[1]
    oracle(batch)
    return list(seen.values())


def test_a_mean_far_from_zero_is_measured_in_float64(tmp_path):
    values = weights()
    values["conv_2.b"] += 3e4
    net, batch = opened(tmp_path, values=values), images()
    (_, second, _), _ = net.one_pass([{"image": batch}])
    recalibrate(net, batch)
    oracle = NumpyNet(values)
    oracle(batch, measure=True)
    # float32 itself resolves the input no better than that
    np.testing.assert_allclose(second.variance, oracle.values["bn_2.running_var"], rtol=2e-2)
    np.testing.assert_allclose(net.sites[1].statistics.variance, oracle.values["bn_2.running_var"], rtol=2e-2)
    with pytest.raises(ValueError, match="iterated again"):
        net.one_pass(iter([{"image": batch}]))


def test_half_precision_is_measured_as_it_is_deployed_and_stored_as_it_was(tmp_path):
    net, batch = opened(tmp_path, dtype=np.float16), images().astype(np.float16)
    recalibrate(net, batch)
    oracle = measured_in_float64(batch)
    assert net.sites[0].statistics.mean.dtype == np.float16
    assert max(apart_from(oracle, site) for site in net.sites) < 2e-2
    assert 0 < net.write(tmp_path / "new.onnx") <= 2 * 2 * sum(CHANNELS.values())
    one_pass, _ = net.one_pass([{"image": batch}])
    assert residual(net, one_pass) < 2e-2


@pytest.mark.parametrize("rank", [2, 3, 4, 5])
def test_every_rank_is_measured(rank, tmp_path):
    random = np.random.default_rng(0)
    values = {name: random.uniform(0.5, 2, 3).astype(np.float32) for name in "gbmv"}
    graph = [
        helper.make_node("BatchNormalization", ["x", *"gbmv"], ["y"], name="first"),
        helper.make_node("Relu", ["y"], ["z"]),
        helper.make_node("BatchNormalization", ["z", *"gbnw"], ["out"], name="second"),
    ]
    values |= {"n": values["m"] + 1, "w": values["v"] + 1}
    net = model(values, graph=graph, outputs=("out",))
    net.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", 1, ["n", 3, *[4] * (rank - 2)]))
    net = open_onnx(save(net, tmp_path / "model.onnx"))
    x = random.normal(1, 2, (10, 3, *[4] * (rank - 2))).astype(np.float32)
    recalibrate(net, x)
    others = (0, *range(2, rank))
    mean, variance = x.astype(np.float64).mean(others), x.astype(np.float64).var(others)
    np.testing.assert_allclose(net.sites[0].statistics.mean, mean, atol=1e-6)
    np.testing.assert_allclose(net.sites[0].statistics.variance, variance, rtol=1e-6)
    handed_on = np.maximum(
        np.moveaxis(x, 1, -1).reshape(-1, 3) @ np.diag(values["g"] / np.sqrt(variance + 1e-5))
        + (values["b"] - values["g"] * mean / np.sqrt(variance + 1e-5)),
        0,
    )
    np.testing.assert_allclose(net.sites[1].statistics.mean, handed_on.mean(0), atol=1e-5)
    np.testing.assert_allclose(net.sites[1].statistics.variance, handed_on.var(0), rtol=1e-5)


def test_a_shared_site_in_parallel_pools_its_calls_and_in_series_comes_to_rest(tmp_path):
    for series in (False, True):
        graph = [
            helper.make_node("BatchNormalization", ["image", *"gbmv"], ["y"], epsilon=EPSILON),
            helper.make_node("Tanh" if series else "Neg", ["y" if series else "image"], ["half"]),
            helper.make_node("BatchNormalization", ["half", *"gbmv"], ["z"], epsilon=EPSILON),
            helper.make_node("Add", ["y", "z"], ["out"]),
        ]
        values = {name: np.linspace(0.5, 1.5, 3, dtype=np.float32) for name in "gbmv"}
        values |= {"m": values["m"] * 2, "v": values["v"] * 3}
        path = save(model(values, graph=graph, outputs=("out",)), tmp_path / f"{series}.onnx")
        net, batch = open_onnx(path), images().astype(np.float32)
        assert [(site.calls, site.channels) for site in net.sites] == [(2, 3)]
        recalibrate(net, batch)
        x = np.moveaxis(batch.astype(np.float64), 1, -1).reshape(-1, 3)
        now = net.sites[0].statistics
        y = (x - now.mean) / np.sqrt(now.variance + EPSILON) * values["g"] + values["b"]
        both = np.concatenate([x, np.tanh(y) if series else -x])
        np.testing.assert_allclose(now.mean, both.mean(0), atol=1e-5)
        np.testing.assert_allclose(now.variance, both.var(0), rtol=1e-5)


def test_several_inputs_and_a_number_among_them(tmp_path):
    net = model()
    net.graph.input.extend(
        [
            helper.make_tensor_value_info("other", 1, ["n", 3, 8, 8]),
            helper.make_tensor_value_info("scale", 1, []),
        ]
    )
    net.graph.node.insert(0, helper.make_node("Mul", ["other", "scale"], ["scaled"]))
    net.graph.node.insert(1, helper.make_node("Add", ["image", "scaled"], ["image_2"]))
    net.graph.node[2].input[0] = "image_2"
    net = open_onnx(save(net, tmp_path / "model.onnx"))
    assert [each.name for each in net.inputs] == ["image", "other", "scale"]
    a, b, scale = images(), images(seed=9), np.float32(0.5)
    recalibrate(net, a, b, scale)
    oracle = measured_in_float64(a.astype(np.float64) + 0.5 * b)
    assert max(apart_from(oracle, site) for site in net.sites) < 2e-5
    assert net.predict({"image": a, "other": b, "scale": scale})[OUTPUT].shape == (48, 3)


def test_a_fixed_batch_of_one_gives_what_any_batch_gives(tmp_path):
    net, batch = opened(tmp_path, batch=1), images()
    assert net.batch_size == 1
    recalibrate(net, batch)
    oracle = measured_in_float64(batch)
    assert max(apart_from(oracle, site) for site in net.sites) < 2e-5


def test_what_no_output_depends_on_is_no_site(tmp_path):
    net = model(
        graph=[*nodes(), helper.make_node("BatchNormalization", ["x2", *dead()], ["idle"], name="dead")]
    )
    for name in dead():
        net.graph.initializer.append(numpy_helper.from_array(np.ones(6, np.float32), name))
    opened_net = open_onnx(save(net, tmp_path / "model.onnx"))
    assert opened_net.unused == ["dead"]
    assert len(opened_net.sites) == 3


def dead():
    return [f"dead.{name}" for name in "abcd"]


def test_statistics_in_constant_nodes_may_be_handed_on(tmp_path):
    net = open_onnx(save(in_constants(model()), tmp_path / "model.onnx"))
    assert [site.path for site in net.sites] == list(CHANNELS)
