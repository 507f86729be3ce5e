"""ONNX nodes that take a site's moments inside the graph: one pass of the fused kernel where the opset has it.

From opset 14 on BatchNormalization in training mode gives the batch's mean and its biased variance where the momentum
is 0 (ONNX operators, BatchNormalization-14), whatever the rank.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

TRAINING_MODE = 14
"""First opset whose BatchNormalization normalises with the batch."""

OUTPUTS = ("size", "mean", "variance")


def moment_nodes(
    tensor: str, prefix: str, channels: int, opset: int, *, precise: bool
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Nodes and constants behind `<prefix>size`, `<prefix>mean` and `<prefix>variance`.

    tensor: (batch, channels, ...). size: how many values it has. precise: reduced in float64, otherwise in float32.
    """
    dtype = TensorProto.DOUBLE if precise else TensorProto.FLOAT
    nodes = [
        helper.make_node("Size", [tensor], [f"{prefix}size"]),
        helper.make_node("Cast", [tensor], [f"{prefix}cast"], to=dtype),
    ]
    if opset >= TRAINING_MODE:
        more, constants = _by_kernel(prefix, channels, dtype)
    else:
        more, constants = _by_reduction(prefix)
    return [*nodes, *more], constants


def normalising_nodes(
    node: NodeProto, inputs: Sequence[str], prefix: str, channels: int
) -> tuple[list[NodeProto], list[TensorProto]]:
    """In place of a BatchNormalization node one that normalises with the batch, and the moments as in `moment_nodes`.

    inputs: tensor, scale and offset; all float32.
    """
    mean, variance = f"{prefix}running_mean", f"{prefix}running_variance"
    kernel = NodeProto()
    kernel.CopyFrom(node)
    kernel.input[:] = [*inputs, mean, variance]
    kernel.output[:] = [node.output[0], f"{prefix}mean", f"{prefix}variance"]
    del kernel.attribute[:]
    kernel.attribute.extend(a for a in node.attribute if a.name == "epsilon")
    kernel.attribute.extend(
        [helper.make_attribute("training_mode", 1), helper.make_attribute("momentum", 0.0)]
    )
    return [kernel, helper.make_node("Size", [inputs[0]], [f"{prefix}size"])], [
        numpy_helper.from_array(np.zeros(channels, np.float32), mean),
        numpy_helper.from_array(np.ones(channels, np.float32), variance),
    ]


def _by_kernel(prefix: str, channels: int, dtype: int) -> tuple[list[NodeProto], list[TensorProto]]:
    of_kind = helper.tensor_dtype_to_np_dtype(dtype)
    ones, zeros = f"{prefix}ones", f"{prefix}zeros"
    kernel = helper.make_node(
        "BatchNormalization",
        [f"{prefix}cast", ones, zeros, zeros, ones],
        [f"{prefix}normalised", f"{prefix}mean", f"{prefix}variance"],
        training_mode=1,
        momentum=0.0,
    )
    return [kernel], [
        numpy_helper.from_array(np.ones(channels, of_kind), ones),
        numpy_helper.from_array(np.zeros(channels, of_kind), zeros),
    ]


def _by_reduction(prefix: str) -> tuple[list[NodeProto], list[TensorProto]]:
    def node(op: str, inputs: str, output: str, **attributes: object) -> NodeProto:
        return helper.make_node(
            op, [prefix + name for name in inputs.split()], [prefix + output], **attributes
        )

    over = {"axes": [0, 2], "keepdims": 1}
    nodes = [
        node("Reshape", "cast planes", "values"),
        node("ReduceMean", "values", "centre", **over),
        node("Sub", "values centre", "apart"),
        node("Mul", "apart apart", "squared"),
        node("ReduceMean", "squared", "spread", **over),
        node("Reshape", "centre flat", "mean"),
        node("Reshape", "spread flat", "variance"),
    ]
    return nodes, [
        # 0 keeps an axis: (batch, channels, all others)
        numpy_helper.from_array(np.array([0, 0, -1]), f"{prefix}planes"),
        numpy_helper.from_array(np.array([-1]), f"{prefix}flat"),
    ]
