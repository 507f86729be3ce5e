"""Sessions of onnxruntime on the CPU, and what goes wrong in them in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from finetune.errors import ModelError

SILENT = 4


@contextmanager
def in_words(path: Path) -> Iterator[None]:
    """Whatever goes wrong inside the block is a ModelError."""
    try:
        yield
    except ModelError:
        raise
    # what a damaged file runs into is not foreseeable: any of Python's, protobuf's or onnxruntime's errors
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        raise ModelError(
            f"{path}: damaged, or it needs what this onnxruntime {onnxruntime.__version__} does not have or was not "
            f"fed: {type(error).__name__}: {first}"
        ) from error


def session(model: ModelProto | Path, *, optimised: bool = True, threads: int = 0) -> Any:
    """model: in memory, or a file. optimised: as a server runs it, or operation by operation as the file says.

    threads: that share the work of one operation; 0 is one a core.
    """
    _share_memory()
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.use_env_allocators", "1")
    # planned memory is taken anew at the second batch of a size; most sessions live for a few batches
    options.enable_mem_pattern = False
    options.intra_op_num_threads = threads
    # errors come as exceptions; printed as well they would be there twice
    options.log_severity_level = SILENT
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    # it would try the same once more and print to stdout, which belongs to results
    return onnxruntime.InferenceSession(
        source, options, providers=["CPUExecutionProvider"], enable_fallback=0
    )


@cache
def _share_memory() -> None:
    """One arena for all sessions: each would touch memory of its own first, and a measurement makes one a piece.

    It stays as large as it once had to be while the process lives.
    """
    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    # whoever embeds this may have registered an arena, which then serves as well
    with suppress(RuntimeError):
        onnxruntime.create_and_register_allocator(place, None)


def piece_of(
    model: ModelProto,
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[str],
    weights: Sequence[TensorProto],
) -> ModelProto:
    """A model of its own with some of the nodes and weights of another, under its operator sets and functions."""
    piece = ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions
    )
    # filled in place: a graph that is handed over is copied, with its weights
    piece.graph.name = "piece"
    piece.graph.node.extend(nodes)
    piece.graph.initializer.extend(weights)
    piece.graph.input.extend(inputs)
    # without a type: onnxruntime infers it
    piece.graph.output.extend(ValueInfoProto(name=name) for name in outputs)
    return piece


def inferred(model: ModelProto, names: Sequence[str]) -> dict[str, ValueInfoProto]:
    """Types and shapes of tensors inside a model as onnxruntime infers them; nothing runs.

    Raises where it lacks one of the operations.
    """
    exposed = ModelProto()
    exposed.CopyFrom(model)
    taken = {output.name for output in model.graph.output}
    exposed.graph.output.extend(ValueInfoProto(name=name) for name in names if name not in taken)
    return {each.name: _described(each) for each in session(exposed, optimised=False).get_outputs()}


def _described(argument: Any) -> ValueInfoProto:
    kind = argument.type.removeprefix("tensor(").removesuffix(")")
    if kind not in ELEMENTS:
        return ValueInfoProto(name=argument.name)
    # onnxruntime says [] for a number and for a shape that is not known
    shape = [size if isinstance(size, int) else None for size in argument.shape] or None
    return helper.make_tensor_value_info(argument.name, ELEMENTS[kind], shape)


SIZED = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
ELEMENTS: dict[str, int] = {
    "float": TensorProto.FLOAT,
    **{
        kind: TensorProto.DataType.Value(kind.upper())
        for kind in ("double", "float16", "bfloat16", "string", "bool", *SIZED)
    },
}
"""onnxruntime's names of tensors' types -> ONNX's numbers."""
