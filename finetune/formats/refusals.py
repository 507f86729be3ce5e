"""Why the running statistics of a SavedModel cannot be measured anew, and what can be done instead."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from finetune.batchnorm.naming import some
from finetune.batchnorm.op_registry import described, unregistered
from finetune.errors import ModelError
from finetune.formats.flat_graph import FlatGraph
from finetune.formats.fused_sites import FusedFindings
from finetune.formats.site_call import SiteCall

WEIGHTED = ("Conv1D", "Conv2D", "Conv3D", "DepthwiseConv2dNative", "MatMul", "BatchMatMulV2", "Einsum")
CLOSED = {
    "XlaCallModule": "one closed StableHLO module (as exported from Keras on JAX), in which no site can be seen; "
    "recalibrate the Keras model and export it again, or export it from KERAS_BACKEND=tensorflow",
    "TRTEngineOp": "compiled for TensorRT, which folds BN into the weights; recalibrate the model it was made from",
}
QUANTISED = ("FakeQuant", "Quantize", "Quantized", "UniformQuantize", "UniformQuantized", "Dequantize")


def refuse_closed(graph: FlatGraph, folder: Path) -> None:
    """Raise ModelError where the network does not show in the graph."""
    for op, reason in CLOSED.items():
        if graph.count(op):
            raise ModelError(f"{folder}: {reason}")
    unknown = [node.op for node in graph.nodes.values() if described(node.op) is None]
    if unknown:
        raise ModelError(f"{folder}: {unregistered(unknown[0])}")
    quantised = [node.op for node in graph.nodes.values() if node.op.startswith(QUANTISED)]
    if quantised:
        raise ModelError(
            f"{folder}: quantised ({len(quantised)} operations such as {quantised[0]}): its scales were chosen for "
            "the statistics it has; recalibrate the model it was made from and quantise that again"
        )


def refuse_unmeasurable(
    graph: FlatGraph, fused: FusedFindings, sites: Sequence[SiteCall], hidden: Collection[str], folder: Path
) -> None:
    """Raise ModelError where a site holds no statistics, or a measurement could not reach them all.

    hidden: names of those inside loops and conditions.
    """
    statistics = {tensor for site in sites for tensor in (site.mean, site.variance)}
    if fused.training or graph.written & statistics or (graph.written and not sites):
        raise ModelError(
            f"{folder}: it normalises with the batch, or changes its variables while it serves (a training-mode "
            "signature); export it for inference, with training=False, and recalibrate that"
        )
    if fused.frozen:
        raise ModelError(
            f"{folder}: frozen: {len(fused.frozen)} sites take their statistics from constants inside "
            "saved_model.pb; recalibrate the model it was frozen from and freeze that again"
        )
    if fused.computed:
        raise ModelError(
            f"{folder}: {some(fused.computed)}: the statistics are computed from other variables, so that there "
            "is nothing to store measured ones in"
        )
    if hidden:
        raise ModelError(
            f"{folder}: {some(sorted(hidden))}: inside a loop or a condition that only the data decide, where "
            "nothing can be measured; export the inference path alone"
        )
    if not sites:
        raise ModelError(f"{folder}: {_no_site(graph)}")


def _no_site(graph: FlatGraph) -> str:
    if not graph.count("VarHandleOp", "ReadVariableOp", "VariableV2", "Variable"):
        return (
            "a frozen graph: its weights are constants, and BN, if it had any, was folded into them; "
            "recalibrate the model it was frozen from and freeze that again"
        )
    return (
        f"no BN site: the network has none, or they were folded into its {graph.count(*WEIGHTED)} weighted "
        "operations (nothing tells the two apart); recalibrate the model from before the folding"
    )
