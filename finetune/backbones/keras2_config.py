"""The configuration of a model of Keras 2, as Keras 3 can read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetune.errors import WeightsError

DROPPED = {
    "DepthwiseConv2D": ("groups",),
    "SeparableConv2D": ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint"),
}
"""What Keras 2 wrote for these without a use, and Keras 3 refuses."""

CODE = ("Lambda", "TFOpLambda", "SlicingOpLambda")


def readable(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Without what Keras 3 does not know of. Raises WeightsError where it holds code."""
    layers = []
    for layer in config["config"]["layers"]:
        kind, own = layer.get("class_name"), dict(layer.get("config", {}))
        if kind in CODE:
            raise WeightsError(
                f"{folder}: holds Python code (a {kind} layer), which is never run from a file; "
                "rebuild that layer from Keras layers and save the model again"
            )
        for key in DROPPED.get(kind or "", ()):
            own.pop(key, None)
        nested = {**layer, "config": own}
        layers.append(readable(nested, folder) if "layers" in own else nested)
    inside = {layer["config"]["name"] for layer in layers if "layers" in layer["config"]}
    return {**config, "config": _renumbered({**config["config"], "layers": layers}, inside)}


def _renumbered(config: dict[str, Any], nested: set[str]) -> dict[str, Any]:
    """With the calls of nested models counted from 0: in Keras 2 the call that built such a model counted as well."""
    first: dict[str, int] = {}

    def is_call(node: Any) -> bool:
        return isinstance(node, list) and len(node) >= 3 and isinstance(node[0], str) and node[0] in nested

    def look(node: Any) -> None:
        if is_call(node):
            first[node[0]] = min(node[1], first.get(node[0], node[1]))
        elif isinstance(node, list):
            for child in node:
                look(child)

    def renumber(node: Any) -> Any:
        if is_call(node):
            return [node[0], node[1] - first[node[0]], *node[2:]]
        return [renumber(child) for child in node] if isinstance(node, list) else node

    look([layer.get("inbound_nodes", []) for layer in config["layers"]] + config.get("output_layers", []))
    layers = [
        {**layer, "inbound_nodes": renumber(layer["inbound_nodes"])} if "inbound_nodes" in layer else layer
        for layer in config["layers"]
    ]
    renumbered = {**config, "layers": layers}
    if "output_layers" in config:
        renumbered["output_layers"] = renumber(config["output_layers"])
    return renumbered
