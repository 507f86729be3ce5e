"""Conditions whose outcome is known before any image is seen, such as `training=False`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tensorflow as tf

from finetune.formats.flat_graph import Node, operation_of

TRANSPARENT = ("Identity", "StopGradient", "PlaceholderWithDefault")
DEPTH = 64


def known_truth(
    tensor: str,
    nodes: Mapping[str, Node],
    resolved: Callable[[str], str],
    truths: Mapping[str, bool],
    depth: int = DEPTH,
) -> bool | None:
    """True or False where constants, defaults and `truths` (tensor -> value) decide; None where the data do."""
    tensor = resolved(tensor)
    if tensor in truths:
        return truths[tensor]
    node = nodes.get(operation_of(tensor))
    if node is None or depth == 0:
        return None
    if node.op == "Const":
        value = tf.make_ndarray(node.attribute("value").tensor)
        return bool(value) if value.shape == () else None
    operands = [known_truth(t, nodes, resolved, truths, depth - 1) for t in node.inputs[:2]]
    return _combined(node.op, operands)


def _combined(op: str, operands: list[bool | None]) -> bool | None:
    if op in TRANSPARENT and len(operands) == 1:
        return operands[0]
    if op == "LogicalNot" and operands[0] is not None:
        return not operands[0]
    if op == "LogicalAnd":
        return False if False in operands else (None if None in operands else True)
    if op == "LogicalOr":
        return True if True in operands else (None if None in operands else False)
    return None
