"""Functions written out into the graph that calls them, until nothing is left but operations.

TensorFlow's own inliner is private, and `prune` alone sees one call only: a signature is a single
StatefulPartitionedCall. Bodies of loops and of conditions that only the data decide stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.batchnorm.op_registry import described, unregistered
from finetune.errors import ModelError
from finetune.formats.flat_graph import FlatGraph, Node, in_order, operation_of, tensor_name
from finetune.formats.predicates import known_truth

CALLS = ("PartitionedCall", "StatefulPartitionedCall")
CONDITIONS = ("If", "StatelessIf")
ASSIGNMENTS = (
    "Assign",
    "AssignAdd",
    "AssignSub",
    "AssignVariableOp",
    "AssignAddVariableOp",
    "AssignSubVariableOp",
)
MOST_NODES = 2_000_000
MOST_CALLS = 200_000
"""A function that calls itself never ends; no network in service comes near these."""


@dataclass(frozen=True, eq=False)
class _Pending:
    """A call or a condition that is not yet written out. inputs: without control inputs."""

    name: str
    definition: Any
    inputs: tuple[str, ...]


class Inliner:
    """Writes out what is reachable in one MetaGraph.

    truths: placeholders whose value is known, such as `training`. Raises ModelError where the graph contradicts
    itself.
    """

    def __init__(
        self, meta_graph: Any, extra: Iterable[Any] = (), truths: Mapping[str, bool] | None = None
    ) -> None:
        definition = meta_graph.graph_def
        self._functions = {f.signature.name: f for f in definition.library.function}
        self._ops = {op.name: op for op in meta_graph.meta_info_def.stripped_op_list.op}
        self._top = {node.name: node for node in [*definition.node, *extra]}
        self._truths = truths or {}
        self._nodes: dict[str, Node] = {}
        self._stands_for: dict[str, str] = {}
        self._pending: list[_Pending] = []
        self._calls = 0

    def flatten(self, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> FlatGraph:
        """inputs, outputs: names of the signature -> tensors of the top level."""
        everything = self.everything([operation_of(tensor) for tensor in outputs.values()])
        ends = {name: self._resolved(tensor) for name, tensor in outputs.items()}
        written = (node.inputs[0] for node in everything.values() if node.op in ASSIGNMENTS)
        return FlatGraph(in_order(everything, ends), inputs, ends, frozenset(written))

    def everything(self, roots: Sequence[str]) -> dict[str, Node]:
        """All operations behind some of the top level, those behind control edges included, written out."""
        for definition in self._reachable(roots):
            references = [r for r in definition.input if not r.startswith("^")]
            self._place(definition.name, definition, tuple(map(tensor_name, references)))
        self._expand()
        return {
            name: Node(name, node.op, tuple(map(self._resolved, node.inputs)), node.definition)
            for name, node in self._nodes.items()
        }

    def _reachable(self, roots: Sequence[str]) -> list[Any]:
        seen: dict[str, Any] = {}
        stack = list(roots)
        while stack:
            name = stack.pop()
            if name in seen:
                continue
            if name not in self._top:
                raise ModelError(f"the graph names an operation {name!r} that it does not have")
            seen[name] = self._top[name]
            stack.extend(operation_of(tensor_name(r.removeprefix("^"))) for r in self._top[name].input)
        return list(seen.values())

    def _place(self, name: str, definition: Any, inputs: tuple[str, ...]) -> None:
        if len(self._nodes) > MOST_NODES:
            raise ModelError(f"more than {MOST_NODES} operations: a function that calls itself?")
        if definition.op in (*CALLS, *CONDITIONS) or definition.op in self._functions:
            self._pending.append(_Pending(name, definition, inputs))
        else:
            self._nodes[name] = Node(name, definition.op, inputs, definition)

    def _expand(self) -> None:
        """Until nothing can be: calls first, for a condition may hang on what one of them returns."""
        waiting: list[_Pending] = []
        while self._pending:
            pending, self._pending = self._pending, []
            for call in pending:
                if not self._written_out(call):
                    waiting.append(call)
            if self._pending or not waiting:
                continue
            known = [call for call in waiting if self._truth(call) is not None]
            waiting = [call for call in waiting if call not in known]
            self._pending = known
        for call in waiting:
            self._nodes[call.name] = Node(call.name, call.definition.op, call.inputs, call.definition)

    def _written_out(self, call: _Pending) -> bool:
        definition = call.definition
        if definition.op not in CONDITIONS:
            function = definition.attr["f"].func.name if definition.op in CALLS else definition.op
            self._write_out(call, function, call.inputs)
            return True
        truth = self._truth(call)
        if truth is None:
            return False
        branch = definition.attr["then_branch" if truth else "else_branch"].func.name
        self._write_out(call, branch, call.inputs[1:])
        return True

    def _truth(self, call: _Pending) -> bool | None:
        return known_truth(call.inputs[0], self._nodes, self._resolved, self._truths) if call.inputs else None

    def _write_out(self, call: _Pending, function: str, inputs: Sequence[str]) -> None:
        self._calls += 1
        if self._calls > MOST_CALLS:
            raise ModelError(f"more than {MOST_CALLS} calls: a function that calls itself?")
        body = self._functions.get(function)
        if body is None or len(body.signature.input_arg) != len(inputs):
            raise ModelError(
                f"{call.name!r} calls a function {function!r} that is missing or takes other inputs"
            )
        arguments = {arg.name: tensor for arg, tensor in zip(body.signature.input_arg, inputs, strict=True)}
        translate = self._translation(call.name, body, arguments)
        for definition in body.node_def:
            references = [translate(r) for r in definition.input if not r.startswith("^")]
            self._place(
                f"{call.name}/{definition.name}", _bound(definition, call.definition), tuple(references)
            )
        for number, output in enumerate(body.signature.output_arg):
            self._stands_for[f"{call.name}:{number}"] = translate(body.ret[output.name])

    def _translation(self, prefix: str, body: Any, arguments: Mapping[str, str]) -> Callable[[str], str]:
        """From names inside a body (`argument`, `operation:output:number`) to tensors of the flat graph."""
        definitions = {definition.name: definition for definition in body.node_def}

        def translate(reference: str) -> str:
            name, _, rest = reference.partition(":")
            if name in arguments:
                return arguments[name]
            if name not in definitions:
                raise ModelError(
                    f"function {body.signature.name!r} names {reference!r}, which it does not have"
                )
            output, _, number = rest.partition(":")
            return f"{prefix}/{name}:{self._start(definitions[name], output) + int(number or 0)}"

        return translate

    def _start(self, definition: Any, output: str) -> int:
        """At which number the tensors of one named output of an operation begin."""
        signature = self._functions[definition.op].signature if definition.op in self._functions else None
        # the file's own list comes first: it is of the TensorFlow that numbered the outputs
        description = signature or self._ops.get(definition.op) or described(definition.op)
        if description is None:
            raise ModelError(unregistered(definition.op))
        start = 0
        for argument in description.output_arg:
            if argument.name == output:
                return start
            start += _tensors(argument, definition)
        raise ModelError(f"operation {definition.op!r} has no output {output!r}")

    def _resolved(self, tensor: str) -> str:
        """The tensor behind the output of a call."""
        seen = set()
        while tensor in self._stands_for:
            if tensor in seen:
                raise ModelError(f"{tensor!r} is its own input")
            seen.add(tensor)
            tensor = self._stands_for[tensor]
        return tensor


def _tensors(argument: Any, definition: Any) -> int:
    if argument.number_attr:
        return int(definition.attr[argument.number_attr].i)
    if argument.type_list_attr:
        return len(definition.attr[argument.type_list_attr].list.type)
    return 1


def _bound(definition: Any, caller: Any) -> Any:
    """A body's operation with the attributes that the call fills in (TF1's polymorphic functions)."""
    open_ones = [name for name, value in definition.attr.items() if value.placeholder]
    if not open_ones:
        return definition
    filled = type(definition)()
    filled.CopyFrom(definition)
    for name in open_ones:
        if definition.attr[name].placeholder in caller.attr:
            filled.attr[name].CopyFrom(caller.attr[definition.attr[name].placeholder])
    return filled
