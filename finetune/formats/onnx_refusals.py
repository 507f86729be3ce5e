"""Why the running statistics of an ONNX model cannot be measured anew, and what can be done instead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from onnx import GraphProto, NodeProto

from finetune.batchnorm.naming import some
from finetune.errors import ModelError
from finetune.formats.onnx_graph import OnnxGraph, attribute, reads, subgraphs
from finetune.formats.onnx_sites import MEAN, VARIANCE, is_bn, named, origin

FIRST_OPSET = 7
"""BatchNormalization that only infers; onnxruntime runs nothing earlier either."""

QUANTISING = (
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "QLinear",
    "ConvInteger",
    "MatMulInteger",
)
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
FOLDING = (
    "export it again without folding (torch.onnx.export: training=TrainingMode.PRESERVE and "
    "do_constant_folding=False on a model in eval mode; tf2onnx and optimisers fold by default), or recalibrate the "
    "model from before the export"
)


def all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Those of subgraphs included."""
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from all_nodes(inner)


def refuse_closed(graph: OnnxGraph, path: Path) -> None:
    """Raise ModelError where what would have to be measured does not show, or has been frozen into something else."""
    if not graph.opset or not graph.live:
        raise ModelError(f"{path}: damaged: no operations under an operator set of ONNX")
    if graph.opset < FIRST_OPSET:
        raise ModelError(
            f"{path}: opset {graph.opset}, which onnxruntime does not run; convert it with onnx.version_converter to "
            f"opset {FIRST_OPSET} or later"
        )
    nodes = list(all_nodes(graph.model.graph))
    quantised = [node.op_type for node in nodes if node.op_type.startswith(QUANTISING)]
    if quantised:
        raise ModelError(
            f"{path}: quantised ({len(quantised)} nodes such as {quantised[0]}): its scales were chosen for the "
            "statistics it has; recalibrate the model it was made from and quantise that again"
        )
    outer = len([node for node in graph.model.graph.node if is_bn(node)])
    inner = [named(node) for node in nodes if is_bn(node)][outer:]
    if len([node for node in nodes if is_bn(node)]) > outer:
        raise ModelError(
            f"{path}: {some(inner)}: inside a loop or a branch, where nothing can be measured; export the inference "
            "path alone"
        )
    if any(is_bn(node) for function in graph.model.functions for node in function.node):
        raise ModelError(
            f"{path}: BatchNormalization inside functions of the model's own; inline them with "
            "onnx.inliner.inline_local_functions and recalibrate the result"
        )


def refuse_unmeasurable(graph: OnnxGraph, sites: Sequence[NodeProto], path: Path) -> None:
    """Raise ModelError where there is no site, or one whose statistics cannot be replaced. sites: those that run."""
    if not sites:
        raise ModelError(f"{path}: {_no_site(graph)}")
    training = [named(node) for node in sites if _trains(node)]
    if training:
        raise ModelError(
            f"{path}: {some(training)}: normalises with the batch (training mode); export the model in inference "
            "mode and recalibrate that"
        )
    spatial = [named(node) for node in sites if not attribute(node, "spatial", 1)]
    if spatial:
        raise ModelError(
            f"{path}: {some(spatial)}: statistics for every pixel (spatial=0), which are not those of channels"
        )
    computed = [named(node) for node in sites if _computed(graph, node)]
    if computed:
        raise ModelError(
            f"{path}: {some(computed)}: the statistics are computed in the graph, so that there is nothing to store "
            "measured ones in; recalibrate the model from before the export"
        )
    busy = _used_elsewhere(graph, sites)
    if busy:
        raise ModelError(
            f"{path}: {some(busy)}: statistics of a site that something else reads too, which would change with them; "
            "export without merging equal constants"
        )


def _trains(node: NodeProto) -> bool:
    return bool(attribute(node, "training_mode", 0)) or any(node.output[1:])


def _computed(graph: OnnxGraph, node: NodeProto) -> bool:
    return any(origin(graph, node.input[place])[-1] not in graph.constants for place in (MEAN, VARIANCE))


def _used_elsewhere(graph: OnnxGraph, sites: Sequence[NodeProto]) -> list[str]:
    """Statistics that are read otherwise than as one site's mean, or as one site's variance."""
    pairs = {tuple(origin(graph, node.input[place])[-1] for place in (MEAN, VARIANCE)) for node in sites}
    holding = Counter(name for pair in pairs for name in pair)
    statistics = {
        name for node in sites for place in (MEAN, VARIANCE) for name in origin(graph, node.input[place])
    }
    outputs = statistics.intersection(graph.outputs)
    others = {
        name
        for node in graph.model.graph.node
        for name in _read_otherwise(node, statistics)
        if name in statistics
    }
    return sorted({name for name, number in holding.items() if number > 1} | outputs | others)


def _read_otherwise(node: NodeProto, statistics: set[str]) -> list[str]:
    """What a node reads, but not as statistics, nor to hand it on to where they are read."""
    if is_bn(node):
        return list(node.input[:MEAN])
    return [] if node.output and node.output[0] in statistics else reads(node)


def _no_site(graph: OnnxGraph) -> str:
    weighted = [node for node in graph.live if node.op_type in WEIGHTED]
    biased = [node for node in weighted if len(node.input) > 2]
    return (
        f"no BatchNormalization node; of {len(weighted)} convolutions and matrix products {len(biased)} have a bias: "
        f"the network has no BN, or it was folded into them at export; {FOLDING}"
    )
