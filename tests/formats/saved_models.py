"""SavedModels of every make, written small: what a model in service may look like on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tests.nets import CLASSES, SIZE, custom_layer_net, disturbed, functional_net

v1 = tf.compat.v1
SHAPE = (SIZE, SIZE, 3)
IMAGES = tf.TensorSpec((None, *SHAPE), tf.float32)


def keras_3_export(folder: Path) -> None:
    functional_net().export(folder, verbose=False)


def keras_3_save(folder: Path) -> None:
    tf.saved_model.save(functional_net(), str(folder))


def export_archive(folder: Path) -> None:
    """Two endpoints under names of their own, none the default one, the second with one image at a time."""
    net = functional_net()
    archive = keras.export.ExportArchive()
    archive.track(net)
    archive.add_endpoint("classify", lambda x: net(x, training=False), input_signature=[IMAGES])
    one = tf.TensorSpec((1, *SHAPE), tf.float32)
    archive.add_endpoint("one_image", lambda x: net(x, training=False), input_signature=[one])
    archive.write_out(folder, verbose=False)


def custom_layers(folder: Path) -> None:
    """Two blocks whose class the reader does not have, each with a site that is never called."""
    custom_layer_net().export(folder, verbose=False)


def tf_keras_net() -> Any:
    """Fused BN behind a convolution, composite BN behind a dense layer."""
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    inputs = tf_keras.Input(SHAPE, name="image")
    x = tf_keras.layers.Conv2D(6, 3, name="conv_1")(inputs)
    x = tf_keras.layers.ReLU()(tf_keras.layers.BatchNormalization(name="bn_1")(x))
    x = tf_keras.layers.GlobalAveragePooling2D()(tf_keras.layers.Conv2D(5, 3, name="conv_2")(x))
    x = tf_keras.layers.BatchNormalization(name="bn_2")(x)
    net = tf_keras.Model(inputs, tf_keras.layers.Dense(CLASSES, name="out")(tf_keras.layers.ReLU()(x)))
    random = np.random.default_rng(0)
    for name in ("bn_1", "bn_2"):
        layer = net.get_layer(name)
        layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return net


def tf_keras_save(folder: Path) -> None:
    tf_keras_net().save(str(folder), save_format="tf")


def tf_keras_export(folder: Path) -> None:
    tf_keras_net().export(str(folder))


def tf1_graph(resource: bool, *, training: bool = False) -> tuple[Any, Any]:
    """Inputs and logits in the default graph: one fused BN, one written out by tf.nn.batch_normalization."""
    random = np.random.default_rng(0)

    def variable(name: str, shape: tuple[int, ...], low: float = -0.5) -> Any:
        return v1.get_variable(
            name, initializer=random.uniform(low, 1.0, shape).astype(np.float32), use_resource=resource
        )

    def statistics(channels: int) -> list[Any]:
        bounds = {"gamma": 0.5, "beta": -0.5, "moving_mean": -0.5, "moving_variance": 0.5}
        return [variable(name, (channels,), low) for name, low in bounds.items()]

    images = v1.placeholder(tf.float32, (None, *SHAPE), name="image")
    with v1.variable_scope("stem"):
        x = tf.nn.conv2d(images, variable("kernel", (3, 3, 3, 6)), 1, "VALID") + variable("bias", (6,))
    with v1.variable_scope("norm_1"):
        x = v1.nn.fused_batch_norm(x, *statistics(6), epsilon=1e-3, is_training=training)[0]
    with v1.variable_scope("middle"):
        x = tf.nn.relu(tf.nn.conv2d(tf.nn.relu(x), variable("kernel", (1, 1, 6, 5)), 1, "VALID"))
    with v1.variable_scope("norm_2"):
        gamma, beta, mean, variance = statistics(5)
        x = tf.nn.batch_normalization(tf.reduce_mean(x, (1, 2)), mean, variance, beta, gamma, 1e-3)
    with v1.variable_scope("out"):
        return images, tf.matmul(tf.nn.relu(x), variable("kernel", (5, CLASSES)))


def _tf1(folder: Path, *, resource: bool) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        images, logits = tf1_graph(resource)
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(folder), {"image": images}, {"logits": logits})


def tf1_resource(folder: Path) -> None:
    _tf1(folder, resource=True)


def tf1_reference(folder: Path) -> None:
    _tf1(folder, resource=False)


def hub_1(folder: Path) -> None:
    """TF-Hub's first layout: an inference graph without tags, one tagged `train`, and a marker file."""
    builder = v1.saved_model.Builder(str(folder))
    for number, tags in enumerate(([], ["train"])):
        with tf.Graph().as_default(), v1.Session() as session:
            images, logits = tf1_graph(True, training=bool(tags))
            session.run(v1.global_variables_initializer())
            signature = v1.saved_model.predict_signature_def({"image": images}, {"default": logits})
            add = builder.add_meta_graph if number else builder.add_meta_graph_and_variables
            add(*([] if number else [session]), tags, signature_def_map={"default": signature})
    builder.save()
    (folder / "tfhub_module.pb").write_bytes(b"\x08\x03")


class HubModule(tf.Module):
    """TF-Hub's second layout: no signature, and `training` decides in the graph."""

    def __init__(self) -> None:
        super().__init__()
        random = np.random.default_rng(0)
        self.kernel = tf.Variable(random.normal(size=(3, 3, 3, 4)), dtype=tf.float32, name="kernel")
        shapes = {"gamma": 0.5, "beta": -0.5, "moving_mean": -0.5, "moving_variance": 0.5}
        self.norms = [
            {
                n: tf.Variable(random.uniform(low, 1.0, 4), dtype=tf.float32, name=f"norm_{i}/{n}")
                for n, low in shapes.items()
            }
            for i in (1, 2)
        ]

    @tf.function(input_signature=[IMAGES, tf.TensorSpec((), tf.bool)], autograph=False)
    def __call__(self, images: Any, training: Any) -> Any:
        x = tf.nn.conv2d(images, self.kernel, 1, "VALID")
        for norm in self.norms:
            x = tf.nn.relu(self.normalise(x, norm, training))
        return tf.reduce_mean(x, (1, 2))

    @staticmethod
    def normalise(x: Any, norm: dict[str, Any], training: Any) -> Any:
        def in_training() -> Any:
            y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
                x=x, scale=norm["gamma"], offset=norm["beta"], mean=[], variance=[], is_training=True
            )
            norm["moving_mean"].assign(0.9 * norm["moving_mean"] + 0.1 * mean)
            norm["moving_variance"].assign(0.9 * norm["moving_variance"] + 0.1 * variance)
            return y

        def in_service() -> Any:
            return tf.raw_ops.FusedBatchNormV3(
                x=x,
                scale=norm["gamma"],
                offset=norm["beta"],
                mean=norm["moving_mean"],
                variance=norm["moving_variance"],
                is_training=False,
            )[0]

        return tf.cond(training, in_training, in_service)


def hub_2(folder: Path) -> None:
    tf.saved_model.save(HubModule(), str(folder), signatures={})


class Named(HubModule):
    """Class numbers become names by a table; `training` is a switch of the signature."""

    def __init__(self) -> None:
        super().__init__()
        self.table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(tf.range(4, dtype=tf.int64), ["cat", "dog", "cow", "hen"]),
            "?",
        )

    @tf.function(input_signature=[IMAGES, tf.TensorSpec((), tf.bool)], autograph=False)
    def serve(self, image: Any, training: Any) -> Any:
        scores = self(image, training)
        return {"name": self.table.lookup(tf.argmax(scores, -1)), "scores": scores}


def lookup_table(folder: Path) -> None:
    module = Named()
    tf.saved_model.save(module, str(folder), signatures=module.serve)


def several_inputs(folder: Path) -> None:
    """An image, a vector with sites of its own, and a number; the second output depends on no site."""
    keras.utils.set_random_seed(0)
    image, vector = keras.Input(SHAPE, name="image"), keras.Input((4,), name="vector")
    x = layers.BatchNormalization(name="bn_image")(layers.Conv2D(4, 3)(image))
    y = layers.BatchNormalization(name="bn_vector")(layers.Dense(4)(vector))
    joined = layers.ReLU()(layers.Add()([layers.GlobalAveragePooling2D()(x), y]))
    out = layers.Dense(CLASSES)(layers.BatchNormalization(name="bn_both")(joined))
    net = disturbed(keras.Model([image, vector], out))
    module = tf.Module()
    module.net = net

    @tf.function(input_signature=[IMAGES, tf.TensorSpec((None, 4)), tf.TensorSpec(())], autograph=False)
    def serve(image: Any, vector: Any, above: Any) -> Any:
        scores = net([image, vector], training=False)
        return {"scores": scores, "any": scores > above, "sum": tf.reduce_sum(vector, -1)}

    tf.saved_model.save(module, str(folder), signatures=serve)


def shared_in_parallel_and_in_series(folder: Path) -> None:
    """One site for two branches, and one whose second call depends on its first."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(SHAPE, name="image")
    twin, loop = layers.BatchNormalization(name="twin"), layers.BatchNormalization(name="loop")
    both = [twin(layers.Conv2D(4, 1)(inputs)), twin(layers.Conv2D(4, 1)(inputs))]
    x = layers.ReLU()(layers.Add()(both))
    again = layers.Conv2D(4, 1)
    x = layers.ReLU()(loop(again(x)))
    x = layers.ReLU()(loop(again(x)))
    x = layers.BatchNormalization(name="last")(layers.GlobalAveragePooling2D()(x))
    disturbed(keras.Model(inputs, layers.Dense(CLASSES)(x))).export(folder, verbose=False)


MAKES: dict[str, Callable[[Path], None]] = {
    make.__name__: make
    for make in (
        keras_3_export,
        keras_3_save,
        export_archive,
        custom_layers,
        tf_keras_save,
        tf_keras_export,
        tf1_resource,
        tf1_reference,
        hub_1,
        hub_2,
        lookup_table,
        several_inputs,
        shared_in_parallel_and_in_series,
    )
}
SIGNATURES = {"export_archive": "classify"}
