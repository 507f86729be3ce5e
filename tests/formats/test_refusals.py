"""What cannot be measured is refused in one line that says what was found and what to do; nothing is written."""

import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.core.protobuf import saved_model_pb2

from finetune.errors import ModelError
from finetune.formats.saved_model import open_saved_model
from finetune.formats.tensor_bundle import TensorBundle
from tests.formats import saved_models
from tests.formats.saved_models import IMAGES, SHAPE, HubModule

v1 = tf.compat.v1


class Serving(tf.Module):
    """Whatever function is given, saved as the only signature."""

    def __init__(self, function, *tracked, spec=IMAGES):
        super().__init__()
        self.tracked = tracked
        self.serve = tf.function(function, input_signature=[spec], autograph=False)

    def save(self, folder):
        tf.saved_model.save(self, str(folder), signatures=self.serve)
        return folder


def variables(net):
    return [variable.value for variable in net.variables]


def fused(x, module, **attributes):
    norm = module.norms[0]
    names = {"scale": "gamma", "offset": "beta", "mean": "moving_mean", "variance": "moving_variance"}
    given = {key: norm[name] for key, name in names.items()} | attributes
    return tf.raw_ops.FusedBatchNormV3(x=tf.nn.conv2d(x, module.kernel, 1, "VALID"), **given)[0]


def trains_fused(folder):
    module = HubModule()
    none = tf.zeros([0])
    Serving(lambda x: fused(x, module, mean=none, variance=none, is_training=True), module).save(folder)


def trains_composite(folder):
    keras.utils.set_random_seed(0)
    net = keras.Sequential([keras.Input(SHAPE), layers.Conv2D(4, 3), layers.BatchNormalization()])
    Serving(lambda x: net(x, training=True), *variables(net)).save(folder)


def frozen(folder):
    module = HubModule()
    mean, variance = (module.norms[0][n].numpy() for n in ("moving_mean", "moving_variance"))
    Serving(lambda x: fused(x, module, mean=mean, variance=variance, is_training=False), module).save(folder)


def frozen_without_a_trace(folder):
    kernel = np.ones((3, 3, 3, 4), np.float32)
    Serving(lambda x: tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "VALID"))).save(folder)


def computed(folder):
    module = HubModule()
    mean = module.norms[0]["moving_mean"]
    Serving(lambda x: fused(x, module, mean=mean * 0.5, is_training=False), module).save(folder)


def folded(folder):
    net = keras.Sequential([keras.Input(SHAPE), layers.Conv2D(4, 3), layers.ReLU()])
    Serving(lambda x: net(x, training=False), *variables(net)).save(folder)


def quantised(folder):
    module = HubModule()
    Serving(
        lambda x: tf.quantization.fake_quant_with_min_max_args(fused(x, module, is_training=False)), module
    ).save(folder)


def decided_by_the_data(folder):
    module = HubModule()
    Serving(
        lambda x: tf.cond(
            tf.reduce_mean(x) > 0,
            lambda: fused(x, module, is_training=False),
            lambda: tf.nn.conv2d(x, module.kernel, 1, "VALID"),
        ),
        module,
    ).save(folder)


def in_a_loop(folder):
    net = keras.Sequential([keras.Input((8, 8, 4)), layers.BatchNormalization()])

    def serve(x):
        return tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, net(y, training=False)), (0, x))[1]

    Serving(serve, *variables(net), spec=tf.TensorSpec((None, 8, 8, 4))).save(folder)


def partitioned(folder):
    with tf.Graph().as_default(), v1.Session() as session:
        pieces = v1.fixed_size_partitioner(2)
        images, x = saved_models.tf1_graph(False)
        mean, variance = (
            v1.get_variable(
                n, (3,), partitioner=pieces, use_resource=False, initializer=v1.ones_initializer()
            )
            for n in ("cut/moving_mean", "cut/moving_variance")
        )
        whole = map(tf.convert_to_tensor, (mean, variance))
        logits = tf.nn.batch_normalization(x, *whole, None, None, 1e-3)
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(folder), {"image": images}, {"logits": logits})


def from_jax(folder):
    """As jax2tf writes it: one operation that holds the whole network."""
    module = HubModule()
    Serving(lambda x: fused(x, module, is_training=False), module).save(folder)
    rename_operation(folder, "Conv2D", "XlaCallModule")


def of_a_library_that_is_not_here(folder):
    module = HubModule()
    Serving(lambda x: tf.nn.relu(fused(x, module, is_training=False)), module).save(folder)
    rename_operation(folder, "Relu", "ReluOfOurOwn")


def rename_operation(folder, before, after):
    path = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    graph = model.meta_graphs[0]
    for function in graph.graph_def.library.function:
        for node in function.node_def:
            node.op = after if node.op == before else node.op
    for described in graph.meta_info_def.stripped_op_list.op:
        described.name = after if described.name == before else described.name
    path.write_bytes(model.SerializeToString())


REFUSED = {
    trains_fused: "training-mode signature",
    trains_composite: "training-mode signature",
    frozen: "frozen: 1 sites take their statistics from constants",
    frozen_without_a_trace: "a frozen graph: its weights are constants",
    computed: "computed from other variables",
    folded: "folded into its 1 weighted operations",
    quantised: r"quantised \(1 operations such as FakeQuant",
    decided_by_the_data: "inside a loop or a condition that only the data decide",
    in_a_loop: "inside a loop or a condition that only the data decide",
    partitioned: "partitioned variable",
    from_jax: "StableHLO",
    of_a_library_that_is_not_here: "operation 'ReluOfOurOwn' is unknown to this TensorFlow",
}


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_it_is_refused_in_one_line(make, tmp_path):
    make(tmp_path / "model")
    with pytest.raises(ModelError, match=REFUSED[make]) as refusal:
        open_saved_model(tmp_path / "model")
    assert "\n" not in str(refusal.value)


def test_copies_that_disagree_are_refused(made, tmp_path):
    shutil.copytree(made("keras_3_export"), tmp_path / "model")
    bundle = TensorBundle(tmp_path / "model" / "variables" / "variables")
    key = "variables/3/.ATTRIBUTES/VARIABLE_VALUE"
    bundle.patch({key: bundle.read(key) + 1})
    with pytest.raises(ModelError, match=r"the copies of 'bn_1/moving_mean' disagree .* export it again"):
        open_saved_model(tmp_path / "model")


def test_what_is_no_saved_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="cannot be read"):
        open_saved_model(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"no model at all")
    with pytest.raises(ModelError, match="damaged"):
        open_saved_model(tmp_path)


def test_statistics_that_no_inference_reads_are_named(tmp_path):
    module = HubModule()
    Serving(lambda x: fused(x, module, is_training=False), module).save(tmp_path / "model")
    model = open_saved_model(tmp_path / "model")
    assert [site.path for site in model.sites] == ["norm_1"]
    assert list(model.unused) == ["norm_2"]


def test_a_default_that_the_file_leaves_away_counts(tmp_path):
    """FusedBatchNormV3 has epsilon 1e-4 by default, and files do not say what is so by default."""
    module = HubModule()
    Serving(lambda x: fused(x, module, is_training=False), module).save(tmp_path / "model")
    assert open_saved_model(tmp_path / "model").sites[0].epsilon == pytest.approx(1e-4)


def test_a_place_that_exists_is_never_written_to(made, tmp_path):
    model = open_saved_model(made("keras_3_export"))
    for place in (tmp_path, made("keras_3_export") / "inside"):
        with pytest.raises(ModelError):
            model.write(place)
    assert not list(tmp_path.iterdir())


def test_a_copy_that_fails_its_check_leaves_nothing_behind(made, tmp_path, monkeypatch):
    model = open_saved_model(made("keras_3_export"))
    site = model.sites[0]
    # what a damaged disk would do: other values arrive than were written
    monkeypatch.setattr(TensorBundle, "patch", lambda self, updates: {})
    site.store(site.statistics.__class__(site.statistics.mean + 1, site.statistics.variance))
    with pytest.raises(ModelError, match="finds other values"):
        model.write(tmp_path / "new" / "2")
    assert not list(tmp_path.iterdir())


def test_the_command_line_does_not_import_it():
    code = "import sys, finetune.cli; print([m for m in sys.modules if m.startswith('finetune.formats')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
