"""A small ONNX network with three BN sites in depth, in every way of storing it, and the same in NumPy float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from finetune.formats.onnx_file import open_onnx

SIZE, CLASSES = 8, 3
CHANNELS = {"bn_1": 6, "bn_2": 6, "bn_3": 5}
EPSILON = 1e-3
STATISTICS = [f"{site}.{name}" for site in CHANNELS for name in ("running_mean", "running_var")]


def images(count: int = 48, seed: int = 1, loc: float = 0.0) -> np.ndarray:
    """(count, 3, 8, 8), unlike one another in contrast, so that pooled features have a spread."""
    random = np.random.default_rng(seed)
    contrast = random.uniform(0.2, 3.0, (count, 1, 1, 1))
    return (random.normal(loc, 1, (count, 3, SIZE, SIZE)) * contrast).astype(np.float32)


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Random values everywhere, so that no law holds by the symmetry of zeros and ones."""
    random = np.random.default_rng(seed)
    values = {
        "conv_1.w": random.normal(0, 0.4, (6, 3, 3, 3)),
        "conv_2.w": random.normal(0, 0.5, (6, 6, 1, 1)),
        "conv_2.b": random.normal(0, 1, 6),
        "dense.w": random.normal(0, 1, (6, 5)),
        "dense.b": random.normal(0, 1, 5),
        "out.w": random.normal(0, 1, (5, CLASSES)),
        "out.b": random.normal(0, 1, CLASSES),
    }
    for site, channels in CHANNELS.items():
        values[f"{site}.weight"] = random.uniform(0.5, 1.5, channels)
        values[f"{site}.bias"] = random.normal(0, 0.5, channels)
        values[f"{site}.running_mean"] = random.normal(0, 0.3, channels)
        values[f"{site}.running_var"] = random.uniform(0.5, 2.0, channels)
    return {name: value.astype(np.float32) for name, value in values.items()}


def nodes() -> list[Any]:
    def bn(site: str, inputs: str, output: str) -> Any:
        values = [f"{site}.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
        return helper.make_node("BatchNormalization", [inputs, *values], [output], name=site, epsilon=EPSILON)

    node = helper.make_node
    return [
        node("Conv", ["image", "conv_1.w"], ["x1"]),
        bn("bn_1", "x1", "y1"),
        node("Relu", ["y1"], ["first"]),
        node("Conv", ["first", "conv_2.w", "conv_2.b"], ["x2"]),
        bn("bn_2", "x2", "y2"),
        node("Add", ["first", "y2"], ["sum"]),
        node("Relu", ["sum"], ["joined"]),
        node("GlobalAveragePool", ["joined"], ["pooled"]),
        node("Flatten", ["pooled"], ["features"]),
        node("Gemm", ["features", "dense.w", "dense.b"], ["x3"]),
        bn("bn_3", "x3", "y3"),
        node("Relu", ["y3"], ["hidden"]),
        node("Gemm", ["hidden", "out.w", "out.b"], ["logits"]),
        node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]


def model(
    values: dict[str, np.ndarray] | None = None,
    *,
    opset: int = 17,
    graph: list[Any] | None = None,
    dtype: type = np.float32,
    outputs: tuple[str, ...] = ("probabilities",),
    batch: Any = "n",
) -> onnx.ModelProto:
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    held = weights() if values is None else values
    return helper.make_model(
        helper.make_graph(
            nodes() if graph is None else graph,
            "net",
            [helper.make_tensor_value_info("image", element, [batch, 3, SIZE, SIZE])],
            [helper.make_tensor_value_info(name, element, None) for name in outputs],
            [numpy_helper.from_array(value.astype(dtype), name) for name, value in held.items()],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
        producer_name="tests",
    )


def in_float_data(net: onnx.ModelProto) -> onnx.ModelProto:
    for tensor in net.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.FLOAT, values.shape, values.ravel()))
    return net


def in_constants(net: onnx.ModelProto, form: str = "value") -> onnx.ModelProto:
    """Statistics in Constant nodes, handed on by an Identity."""
    held = {t.name: t for t in net.graph.initializer if t.name in STATISTICS}
    others = [t for t in net.graph.initializer if t.name not in held]
    made = []
    for name, tensor in held.items():
        value = {"value": tensor} if form == "value" else {"value_floats": numpy_helper.to_array(tensor)}
        made.append(helper.make_node("Constant", [], [f"{name}.held"], **value))
        made.append(helper.make_node("Identity", [f"{name}.held"], [name]))
    rest = list(net.graph.node)
    del net.graph.node[:], net.graph.initializer[:]
    net.graph.node.extend([*made, *rest])
    net.graph.initializer.extend(others)
    return net


def save(net: onnx.ModelProto, path: Path, *, external: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if external:
        onnx.save(net, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=0)
    else:
        onnx.save(net, path)
    return path


STORED = {
    "raw bytes": lambda path: save(model(), path),
    "float_data": lambda path: save(in_float_data(model()), path),
    "Constant nodes": lambda path: save(in_constants(model()), path),
    "Constant nodes with value_floats": lambda path: save(in_constants(model(), "value_floats"), path),
    "external data": lambda path: save(model(), path, external=True),
}


class NumpyNet:
    """`model` in float64, written from the definition of the operations alone."""

    def __init__(self, values: dict[str, np.ndarray] | None = None) -> None:
        self.values = {k: v.astype(np.float64) for k, v in (weights() if values is None else values).items()}

    def normalised(self, site: str, x: np.ndarray, *, measure: bool) -> np.ndarray:
        """x: (values, channels). measure: take the moments of x into force first."""
        if measure:
            self.values[f"{site}.running_mean"], self.values[f"{site}.running_var"] = x.mean(0), x.var(0)
        mean, variance = self.values[f"{site}.running_mean"], self.values[f"{site}.running_var"]
        scaled = (x - mean) / np.sqrt(variance + EPSILON)
        return scaled * self.values[f"{site}.weight"] + self.values[f"{site}.bias"]

    def __call__(self, batch: np.ndarray, *, measure: bool = False) -> np.ndarray:
        """Probabilities; with all images in one batch, `measure` puts the exact statistics in force on the way."""
        v = self.values
        x = batch.astype(np.float64).transpose(0, 2, 3, 1)
        count, side = len(x), SIZE - 2
        kernel = v["conv_1.w"].transpose(2, 3, 1, 0)
        seen = sum(x[:, i : i + side, j : j + side] @ kernel[i, j] for i in range(3) for j in range(3))
        first = np.maximum(self.normalised("bn_1", seen.reshape(-1, 6), measure=measure), 0)
        second = first @ v["conv_2.w"][:, :, 0, 0].T + v["conv_2.b"]
        joined = np.maximum(first + self.normalised("bn_2", second, measure=measure), 0)
        dense = joined.reshape(count, -1, 6).mean(1) @ v["dense.w"] + v["dense.b"]
        hidden = np.maximum(self.normalised("bn_3", dense, measure=measure), 0)
        logits = hidden @ v["out.w"] + v["out.b"]
        return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def opened(folder: Path, **how: Any) -> Any:
    """A network of `model`, saved and opened."""
    return open_onnx(save(model(**how), folder / "model.onnx"))


def measured_in_float64(batch: np.ndarray) -> NumpyNet:
    net = NumpyNet()
    net(batch, measure=True)
    return net


def apart_from(oracle: NumpyNet, site: Any) -> float:
    """In standard deviations of the input, or as a share of its variance: whichever is more."""
    mean, variance = (oracle.values[f"{site.path}.{name}"] for name in ("running_mean", "running_var"))
    means = np.abs(site.statistics.mean - mean) / np.sqrt(variance)
    return float(max(means.max(), np.abs(site.statistics.variance / variance - 1).max()))
