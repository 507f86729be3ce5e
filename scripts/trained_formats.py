"""One network in every format in which models are in service: Keras 3, tf_keras, TensorFlow 1, ONNX.

Foreign formats are written from a list of the network's layers (`steps`), each in the words of its own library, with
its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import tensorflow as tf
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from finetune.backbones.bundled_weights import Bundled

SIDE, CLASSES, IMAGE = 56, 10, "image"
v1 = tf.compat.v1


def trained_network() -> keras.Model:
    """The bundled network with the classifier it was trained with: RGB 0..255 (batch, 56, 56, 3) -> logits."""
    built = Bundled().build(SIDE)
    assert built.classifier is not None
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(built.model.output)
    dense = keras.layers.Dense(CLASSES, name="classes")
    network = keras.Model(built.model.input, dense(pooled))
    dense.set_weights([built.classifier.kernel, built.classifier.bias])
    return network


def resnet50(side: int) -> keras.Model:
    """ResNet-50 of random weights: (batch, side, side, 3) -> logits."""
    keras.utils.set_random_seed(0)
    return keras.applications.ResNet50(
        weights=None, input_shape=(side, side, 3), classes=CLASSES, classifier_activation=None
    )


@dataclass(frozen=True, eq=False)
class Step:
    """One layer. kind: its class in Keras. inputs: names of earlier steps, or IMAGE."""

    name: str
    kind: str
    config: dict[str, Any]
    weights: Sequence[NDArray]
    inputs: tuple[str, ...]


def steps(network: keras.Model) -> list[Step]:
    """In an order in which they can run; the last one makes the output."""
    known = {id(network.input): IMAGE}
    found = []
    for layer in network.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        inputs = tuple(known[id(tensor)] for tensor in keras.tree.flatten(layer.input))
        found.append(Step(layer.name, type(layer).__name__, layer.get_config(), layer.get_weights(), inputs))
        known[id(layer.output)] = layer.name
    return found


def keras_3_export(network: keras.Model, folder: Path) -> Path:
    network.export(folder / "model", verbose=False)
    return folder / "model"


def keras_3_save(network: keras.Model, folder: Path) -> Path:
    tf.saved_model.save(network, str(folder / "model"))
    return folder / "model"


def keras_file(network: keras.Model, folder: Path, ending: str) -> Path:
    network.save(folder / f"model{ending}")
    return folder / f"model{ending}"


KEPT = (
    *("name", "filters", "kernel_size", "strides", "padding", "use_bias", "pool_size", "units", "activation"),
    *("axis", "momentum", "epsilon", "scale", "offset"),
)
"""What a layer of Keras 3 says of itself that one of Keras 2 takes."""


def tf_keras_save(network: keras.Model, folder: Path) -> Path:
    import tf_keras

    values = {IMAGE: tf_keras.Input(network.input_shape[1:], name=IMAGE)}
    for step in steps(network):
        wanted = {key: step.config[key] for key in KEPT if key in step.config}
        layer = getattr(tf_keras.layers, step.kind)(**wanted)
        inputs = [values[name] for name in step.inputs]
        values[step.name] = layer(inputs if len(inputs) > 1 else inputs[0])
        layer.set_weights(step.weights)
    tf_keras.Model(values[IMAGE], values[step.name]).save(str(folder / "model"), save_format="tf")
    return folder / "model"


def tf1_save(network: keras.Model, folder: Path, *, resource: bool) -> Path:
    shape, listed = network.input_shape, steps(network)
    with tf.Graph().as_default(), v1.Session() as session:
        values = {IMAGE: v1.placeholder(tf.float32, shape, name=IMAGE)}
        for step in listed:
            with v1.variable_scope(step.name):
                weights = [
                    v1.get_variable(f"weight_{n}", initializer=weight, use_resource=resource)
                    for n, weight in enumerate(step.weights)
                ]
                values[step.name] = in_tf1(step, [values[name] for name in step.inputs], weights)
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(
            session, str(folder / "model"), {IMAGE: values[IMAGE]}, {"logits": values[listed[-1].name]}
        )
    return folder / "model"


def in_tf1(step: Step, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
    """The layer as people wrote it then."""
    x, config = inputs[0], step.config
    match step.kind:
        case "Rescaling":
            return x * config["scale"] + config["offset"]
        case "Conv2D":
            made = tf.nn.conv2d(x, weights[0], config["strides"], config["padding"].upper())
            return made + weights[1] if config["use_bias"] else made
        case "ZeroPadding2D":
            return tf.pad(x, [(0, 0), *config["padding"], (0, 0)])
        case "BatchNormalization":
            return v1.nn.fused_batch_norm(x, *weights, epsilon=config["epsilon"], is_training=False)[0]
        case "Activation":
            return getattr(tf.nn, config["activation"])(x)
        case "MaxPooling2D":
            return tf.nn.max_pool2d(x, config["pool_size"], config["strides"], config["padding"].upper())
        case "Add":
            return tf.add_n(inputs)
        case "GlobalAveragePooling2D":
            return tf.reduce_mean(x, (1, 2))
        case "Dense":
            return tf.matmul(x, weights[0]) + weights[1]
    raise ValueError(f"a layer {step.kind} is not written here in TensorFlow 1; add its case")


def onnx_save(network: keras.Model, folder: Path) -> Path:
    """Channels first, weights as initialisers."""
    (_, height, width, channels), listed = network.input_shape, steps(network)
    constants: list[TensorProto] = []
    nodes = [in_onnx(step, constants) for step in listed]
    image = helper.make_tensor_value_info(IMAGE, TensorProto.FLOAT, ["n", channels, height, width])
    logits = helper.make_tensor_value_info(listed[-1].name, TensorProto.FLOAT, ["n", CLASSES])
    graph = helper.make_graph(nodes, "network", [image], [logits], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def in_onnx(step: Step, constants: list[TensorProto]) -> Any:
    """The layer as a node; its weights are added to `constants`."""

    def constant(name: str, values: Any) -> str:
        held = np.ascontiguousarray(values, np.float32)
        constants.append(numpy_helper.from_array(held, f"{step.name}.{name}"))
        return constants[-1].name

    config = step.config
    node = partial(helper.make_node, outputs=[step.name], name=step.name)
    match step.kind:
        case "Rescaling":
            # offset 0: `steps` of another network would need a node more
            return node("Mul", [*step.inputs, constant("scale", config["scale"])])
        case "Conv2D":
            held = [constant("kernel", step.weights[0].transpose(3, 2, 0, 1))]
            if config["use_bias"]:
                held.append(constant("bias", step.weights[1]))
            return node("Conv", [*step.inputs, *held], strides=config["strides"], auto_pad=padded(config))
        case "ZeroPadding2D":
            (top, bottom), (left, right) = config["padding"]
            sizes = numpy_helper.from_array(
                np.array([0, 0, top, left, 0, 0, bottom, right]), f"{step.name}.pads"
            )
            constants.append(sizes)
            return node("Pad", [*step.inputs, sizes.name])
        case "BatchNormalization":
            names = ("gamma", "beta", "moving_mean", "moving_variance")
            held = [constant(name, values) for name, values in zip(names, step.weights, strict=True)]
            return node("BatchNormalization", [*step.inputs, *held], epsilon=config["epsilon"])
        case "Activation":
            return node({"relu": "Relu"}[config["activation"]], step.inputs)
        case "MaxPooling2D":
            window = {"kernel_shape": config["pool_size"], "strides": config["strides"]}
            return node("MaxPool", step.inputs, auto_pad=padded(config), **window)
        case "Add":
            return node("Add", step.inputs)
        case "GlobalAveragePooling2D":
            return node("ReduceMean", step.inputs, axes=[2, 3], keepdims=0)
        case "Dense":
            kernel, bias = step.weights
            return node("Gemm", [*step.inputs, constant("kernel", kernel), constant("bias", bias)])
    raise ValueError(f"a layer {step.kind} is not written here in ONNX; add its case")


def padded(config: dict[str, Any]) -> str:
    return {"same": "SAME_UPPER", "valid": "VALID"}[config["padding"]]


FORMATS: dict[str, Callable[[keras.Model, Path], Path]] = {
    "Keras 3 model.export": keras_3_export,
    "Keras 3 tf.saved_model.save": keras_3_save,
    "tf_keras SavedModel": tf_keras_save,
    "TF1 resource variables": partial(tf1_save, resource=True),
    "TF1 reference variables": partial(tf1_save, resource=False),
    ".keras": partial(keras_file, ending=".keras"),
    ".h5": partial(keras_file, ending=".h5"),
    "ONNX": onnx_save,
}
"""Each writes the network into a folder that exists, and returns what is to be opened."""
