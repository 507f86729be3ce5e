"""A piece of a graph as a function that TensorFlow can call, written down instead of traced.

`tf.function` builds every operation anew in Python, and a network that is cut at fifty sites has fifty pieces; a
FunctionDef is a copy of what is written already. How one is made known, called and forgotten is asked of a module that
TensorFlow does not document, and of that here alone.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import tensorflow as tf
from tensorflow.python.eager import context, execute

from finetune.batchnorm.op_registry import outputs_of

COUNT = itertools.count()
LEFT_OUT = "_class"
"""What an operation is to be placed beside may lie outside of the piece."""


def _only(optimizers: Sequence[str], times: int) -> bytes:
    """Options of a session in which nothing else is done to a graph."""
    options = tf.compat.v1.ConfigProto()
    options.graph_options.rewrite_options.optimizers.extend(optimizers)
    options.graph_options.rewrite_options.meta_optimizer_iterations = times
    options.graph_options.rewrite_options.min_graph_nodes = -1
    return options.SerializeToString()


Optimised = Literal["barely", "well", "as served"]

OPTIONS: Mapping[Optimised, bytes] = {
    "barely": _only(["remap"], 1),
    "well": _only(["constfold", "remap"], 2),
    "as served": b"",
}
"""barely: operations are fused, for what runs a few times. well: multiplications by one are left out before, as a
swish has one that hinders its being fused. as served: all that a server does."""


class GraphFunction:
    """Called with a list of tensors, one an argument; returns the results, one a name. No two have the same name.

    nodes: NodeDefs in any order, each input as "operation:number". arguments: by name of the tensor, its dtype's
    number. signatures: of the functions that nodes may call, by name.
    """

    def __init__(
        self,
        nodes: Sequence[Any],
        arguments: Mapping[str, int],
        results: Sequence[str],
        signatures: Mapping[str, Any],
        *,
        optimised: Optimised = "barely",
    ) -> None:
        """optimised: how much TensorFlow does to the graph before it runs it first, see OPTIONS."""
        self._name = f"finetune_piece_{next(COUNT)}"
        self._results = len(results)
        self._options = OPTIONS[optimised]
        context.context().add_function_def(_definition(self._name, nodes, arguments, results, signatures))
        weakref.finalize(self, _forget, self._name).atexit = False

    def __call__(self, tensors: Sequence[Any]) -> list[Any]:
        return list(
            execute.execute(
                self._name,
                num_outputs=self._results,
                inputs=list(tensors),
                attrs=("executor_type", "", "config_proto", self._options),
                ctx=context.context(),
            )
        )


def make_known(functions: Sequence[Any]) -> None:
    """Functions that pieces call, where TensorFlow does not know them yet."""
    here = context.context()
    for function in functions:
        if not here.has_function(function.signature.name):
            here.add_function_def(function)


def _forget(name: str) -> None:
    context.context().remove_function(name)


def _definition(
    name: str,
    nodes: Sequence[Any],
    arguments: Mapping[str, int],
    results: Sequence[str],
    signatures: Mapping[str, Any],
) -> Any:
    """The FunctionDef: its arguments are a0, a1, ..., its results r0, r1, ..."""
    definition = tf.compat.v1.GraphDef().library.function.add()
    definition.signature.name, definition.signature.is_stateful = name, True
    outputs = {node.name: outputs_of(node, signatures) for node in nodes}
    called: dict[str, tuple[str, int]] = {}
    for place, (tensor, kind) in enumerate(arguments.items()):
        definition.signature.input_arg.add(name=f"a{place}", type=kind)
        called[tensor] = (f"a{place}", kind)

    def of(tensor: str) -> tuple[str, int]:
        operation, _, number = tensor.partition(":")
        return called[tensor] if tensor in called else outputs[operation][int(number)]

    for node in nodes:
        copy = definition.node_def.add()
        copy.CopyFrom(node)
        copy.attr.pop(LEFT_OUT, None)
        copy.input[:] = [of(tensor)[0] for tensor in data_inputs(node)]
    for place, tensor in enumerate(results):
        reference, kind = of(tensor)
        definition.signature.output_arg.add(name=f"r{place}", type=kind)
        definition.ret[f"r{place}"] = reference
    return definition


def data_inputs(node: Any) -> list[str]:
    """Names of the tensors that a node reads, each with its number, "a:0"."""
    return [name if ":" in name else f"{name}:0" for name in node.input if not name.startswith("^")]
