"""A SavedModel of any make is measured exactly, and its copy differs in the statistics alone for both loaders."""

import hashlib
import shutil
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from finetune.batchnorm.batch_moments import batch_moments
from finetune.batchnorm.matching import matched_affine
from finetune.batchnorm.moments import PopulationMoments, RunningStatistics
from finetune.batchnorm.population import one_pass
from finetune.batchnorm.shift import distance
from finetune.batchnorm.sites import find_sites
from finetune.errors import ModelError
from finetune.formats.saved_model import open_saved_model
from finetune.formats.tensor_bundle import TensorBundle
from tests.formats import saved_models
from tests.formats.recalibrating import recalibrate, recalibrated
from tests.formats.saved_models import MAKES, SIGNATURES
from tests.nets import custom_layer_net, functional_net, photographs

v1 = tf.compat.v1
SITES = {
    "tf_keras_save": ["bn_1", "bn_2"],
    "tf_keras_export": ["bn_1", "bn_2"],
    "custom_layers": ["block_1", "block_2"],
    "several_inputs": ["bn_image", "bn_vector", "bn_both"],
    "shared_in_parallel_and_in_series": ["twin", "loop", "last"],
}
SITES |= {name: ["bn_1", "bn_2", "bn_3"] for name in ("keras_3_export", "keras_3_save", "export_archive")}
SITES |= {
    name: ["norm_1", "norm_2"] for name in ("tf1_resource", "tf1_reference", "hub_1", "hub_2", "lookup_table")
}
LIVE = {
    "keras_3_export": functional_net,
    "keras_3_save": functional_net,
    "export_archive": functional_net,
    "custom_layers": custom_layer_net,
}
NO_SESSION = {"keras_3_save", "several_inputs", "hub_2"}
"""Their sessions find no variable, or no signature: so it is with the original."""
NO_OBJECTS = {"tf1_reference"}
"""`tf.saved_model.load` gives reference variables no value: so it is with the original."""


def opened(made, name):
    return open_saved_model(made(name), SIGNATURES.get(name))


def batch_for(model, count=48):
    vector = np.random.default_rng(6).normal(0.5, 2.0, (count, 4)).astype(np.float32)
    given = {"vector": vector, "above": np.float32(0.3)}
    return {each.name: given.get(each.name, photographs(count)) for each in model.inputs}


def through_objects(folder, name, batch):
    loaded = tf.saved_model.load(str(folder), tags=[] if name == "hub_1" else None)
    if name == "hub_2":
        return {"output_0": loaded(batch["images"], tf.constant(False)).numpy()}
    signature = {"hub_1": "default"}.get(name, SIGNATURES.get(name, "serving_default"))
    extra = {"training": tf.constant(False)} if name == "lookup_table" else {}
    outputs = loaded.signatures[signature](**{k: tf.constant(v) for k, v in batch.items()}, **extra)
    return {key: value.numpy() for key, value in outputs.items()}


def through_session(folder, name, batch):
    signature = {"hub_1": "default"}.get(name, SIGNATURES.get(name, "serving_default"))
    with tf.Graph().as_default(), v1.Session() as session:
        meta_graph = v1.saved_model.load(session, [] if name == "hub_1" else ["serve"], str(folder))
        described = meta_graph.signature_def[signature]
        feeds = {info.name: batch.get(key, False) for key, info in described.inputs.items()}
        return session.run({key: info.name for key, info in described.outputs.items()}, feeds)


def hashes(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def differing_bytes(one, other):
    return sum(a != b for a, b in zip_longest(one.read_bytes(), other.read_bytes()))


@pytest.mark.parametrize("name", MAKES)
def test_every_make_shows_its_sites(made, name):
    assert [site.path for site in opened(made, name).sites] == SITES[name]


@pytest.mark.parametrize("name", MAKES)
def test_predictions_are_those_of_tensorflows_own_loader(made, name):
    model = opened(made, name)
    batch = batch_for(model)
    found = model.predict(batch)
    load = through_session if name in NO_OBJECTS else through_objects
    for key, wanted in load(made(name), name, batch).items():
        if wanted.dtype == np.float32:
            np.testing.assert_allclose(found[key], wanted, rtol=0, atol=1e-5)
        else:
            np.testing.assert_array_equal(found[key], wanted)


@pytest.mark.parametrize("name", LIVE)
def test_recalibrating_the_file_is_recalibrating_the_live_network(made, name):
    model, images = opened(made, name), photographs()
    recalibrate(model, images)
    live = recalibrated(LIVE[name](), images)
    found = model.predict({model.inputs[0].name: images})["output_0"]
    np.testing.assert_allclose(np.log(found), np.log(live(images, training=False)), rtol=0, atol=1e-4)


@dataclass
class Written:
    """A model that was recalibrated and written, and what its folder held before."""

    model: Any
    batch: dict[str, Any]
    before: dict[str, str]
    original: Path
    copy: Path
    changed: int


@pytest.fixture(scope="module")
def written(made, tmp_path_factory):
    done: dict[str, Written] = {}

    def write(name):
        if name not in done:
            before, model = hashes(made(name)), opened(made, name)
            batch = batch_for(model)
            recalibrate(model, *batch.values())
            copy = tmp_path_factory.mktemp("written") / "versions" / "2"
            done[name] = Written(model, batch, before, made(name), copy, model.write(copy))
        return done[name]

    return write


@pytest.mark.parametrize("name", MAKES)
def test_every_site_stores_the_moments_of_what_it_is_then_given(written, name):
    model, batch = written(name).model, written(name).batch
    network = model.network()
    names = [call.inputs for call in network.calls]
    seen = network.function(network.inputs, names)
    values = [np.asarray(v, np.float64) for v in seen([tf.convert_to_tensor(v) for v in batch.values()])]
    for number, site in enumerate(model.sites):
        calls = zip(values, network.calls, strict=True)
        rows = np.concatenate([v.reshape(-1, v.shape[-1]) for v, call in calls if call.site == number])
        wanted = RunningStatistics(rows.mean(0), rows.var(0))
        assert distance(site.statistics, wanted, site.epsilon) < 2e-5


@pytest.mark.parametrize("name", MAKES)
def test_a_copy_differs_in_the_statistics_alone(written, name):
    done = written(name)
    assert hashes(done.original) == done.before
    after = hashes(done.copy)
    assert after.keys() == done.before.keys()
    different = {path for path in after if after[path] != done.before[path]}
    assert different - {"fingerprint.pb"} == {
        "variables/variables.index",
        "variables/variables.data-00000-of-00001",
    }
    assert done.changed == sum(differing_bytes(done.original / path, done.copy / path) for path in different)
    assert_only_statistics_differ(done.original, done.copy, done.model)


@pytest.mark.parametrize("name", MAKES)
def test_both_loaders_predict_what_is_in_force(written, name):
    done = written(name)
    wanted = done.model.predict(done.batch)
    for load, missing in ((through_objects, NO_OBJECTS), (through_session, NO_SESSION)):
        if name not in missing:
            for key, value in load(done.copy, name, done.batch).items():
                if value.dtype == np.float32:
                    np.testing.assert_allclose(value, wanted[key], rtol=0, atol=1e-5)


def assert_only_statistics_differ(original, copy, model):
    """As TensorFlow's own checkpoint reader sees it."""
    one, other = (tf.train.load_checkpoint(str(f / "variables" / "variables")) for f in (original, copy))
    held = {
        v for site in model.sites for s in [site.statistics] for v in (s.mean.tobytes(), s.variance.tobytes())
    }
    for key in one.get_variable_to_shape_map():
        before, after = np.asarray(one.get_tensor(key)), np.asarray(other.get_tensor(key))
        assert before.tobytes() == after.tobytes() or after.tobytes() in held


def test_the_fingerprint_is_that_of_the_new_checkpoint(written):
    done = written("keras_3_export")
    read = tf.saved_model.experimental.read_fingerprint
    before, after = read(str(done.original)), read(str(done.copy))
    index = (done.copy / "variables" / "variables.index").read_bytes()
    hashed = int.from_bytes(tf.fingerprint([index]).numpy()[0].tobytes(), "little")
    assert after.checkpoint_hash == hashed != before.checkpoint_hash
    assert after.graph_def_program_hash == before.graph_def_program_hash


def test_recalibrating_twice_on_the_same_images_changes_no_byte(written, tmp_path):
    once = written("keras_3_export").copy
    again = open_saved_model(once)
    recalibrate(again, photographs())
    assert again.write(tmp_path / "twice") == 0
    assert hashes(once) == hashes(tmp_path / "twice")


def test_everything_beside_the_variables_is_copied_as_it_is(made, tmp_path):
    shutil.copytree(made("keras_3_export"), tmp_path / "model")
    (tmp_path / "model" / "assets.extra").mkdir()
    (tmp_path / "model" / "assets.extra" / "warmup").write_bytes(b"\x00\x01")
    model = open_saved_model(tmp_path / "model")
    recalibrate(model, photographs())
    model.write(tmp_path / "copy")
    assert (tmp_path / "copy" / "assets.extra" / "warmup").read_bytes() == b"\x00\x01"


def test_storing_changes_predictions_and_not_the_file(made):
    before = hashes(made("keras_3_export"))
    model = opened(made, "keras_3_export")
    batch = batch_for(model)
    first = model.predict(batch)["output_0"]
    site = model.sites[1]
    site.store(RunningStatistics(site.statistics.mean + 1, site.statistics.variance))
    assert np.abs(model.predict(batch)["output_0"] - first).max() > 0.01
    assert hashes(made("keras_3_export")) == before


def test_a_signature_of_one_image_at_a_time_is_measured_exactly(made):
    one = open_saved_model(made("export_archive"), "one_image")
    any_number = open_saved_model(made("export_archive"), "classify")
    assert (one.batch_size, any_number.batch_size) == (1, None)
    recalibrate(one, photographs(12))
    recalibrate(any_number, photographs(12))
    for a, b in zip(one.sites, any_number.sites, strict=True):
        assert distance(a.statistics, b.statistics, a.epsilon) < 1e-5


def test_one_of_several_signatures_must_be_named(tmp_path):
    module = saved_models.HubModule()
    both = {"first": module.__call__, "second": module.__call__}
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=both)
    assert len(open_saved_model(tmp_path / "model", "second").sites) == 2
    with pytest.raises(ModelError, match="first, second"):
        open_saved_model(tmp_path / "model")
    with pytest.raises(ModelError, match="no signature 'train'; there are first, second"):
        open_saved_model(tmp_path / "model", "train")


def test_calls_of_a_shared_site_are_counted_together(made):
    sites = opened(made, "shared_in_parallel_and_in_series").sites
    assert [site.calls for site in sites] == [2, 2, 1]


@pytest.mark.parametrize("batch", [48, 16])
@pytest.mark.parametrize("name", ["keras_3_export", "custom_layers"])
def test_one_pass_is_that_of_the_live_network(made, name, batch):
    model, images = opened(made, name), photographs()
    net = LIVE[name]()
    sites = [site for site in find_sites(net, images[:1]) if site.calls]
    batches = [images[start : start + batch] for start in range(0, 48, batch)]
    wanted, _ = one_pass(net, sites, batches)
    found, count = model.one_pass([{model.inputs[0].name: b} for b in batches])
    assert count == 48
    for a, b, site in zip(wanted, found, sites, strict=True):
        # twice the 2e-5 that one measurement may be off (above, and in tests/batchnorm/test_population.py)
        assert distance(a.statistics(), b.statistics(), site.epsilon) < 4e-5


def test_one_pass_takes_the_same_affine_transform_as_the_live_network(made):
    model, images = opened(made, "keras_3_export"), photographs()
    net = functional_net()
    sites = find_sites(net, images[:1])
    other = RunningStatistics(np.array(0.7), np.array(2.5))
    affine = {site.path: matched_affine(site.statistics, other, site.epsilon) for site in sites}
    wanted, _ = one_pass(net, sites, [images], affine)
    by_path = {
        site.path.rpartition("/")[2]: value for site, value in zip(sites, affine.values(), strict=True)
    }
    found, _ = model.one_pass([{"image": images}], by_path)
    for a, b, site in zip(wanted, found, sites, strict=True):
        assert distance(a.statistics(), b.statistics(), site.epsilon) < 2e-5


@pytest.mark.parametrize("name", ["tf1_reference", "hub_2", "tf_keras_save", "several_inputs"])
def test_one_pass_over_a_single_batch_is_exact(made, name):
    model = opened(made, name)
    batch = batch_for(model)
    found, _ = model.one_pass([batch])
    recalibrate(model, *batch.values(), batch=48)
    for site, moments in zip(model.sites, found, strict=True):
        assert distance(site.statistics, moments.statistics(), site.epsilon) < 2e-5


def test_sites_far_from_zero_are_measured_in_float64_by_one_pass(made):
    model = opened(made, "hub_2")
    images = (photographs() * 1e-3 + 50).astype(np.float32)
    found, _ = model.one_pass([{"images": images}])
    kernel = np.asarray(saved_models.HubModule().kernel)
    inputs = tf.nn.conv2d(images, kernel, 1, "VALID")
    count, mean, variance = batch_moments(inputs, None, -1, precise=True)
    wanted = PopulationMoments.of_batch(float(count), np.asarray(mean), np.asarray(variance))
    assert wanted.far_from_zero(1e-4)
    np.testing.assert_allclose(found[0].variance, wanted.variance, rtol=1e-6)
    with pytest.raises(ValueError, match="iterated again"):
        model.one_pass(iter([{"images": images}]))


def test_no_image_is_an_error(made):
    with pytest.raises(ValueError, match="empty"):
        opened(made, "keras_3_export").one_pass([])


def test_the_checkpoint_holds_both_copies_of_a_keras_export(written):
    done = written("keras_3_export")
    bundle = TensorBundle(done.copy / "variables" / "variables")
    mean = done.model.sites[0].statistics.mean
    holding = [
        key for key in bundle.keys if bundle.shape(key) == (6,) and np.array_equal(bundle.read(key), mean)
    ]
    assert len({key.partition("/")[0] for key in holding}) == 2
