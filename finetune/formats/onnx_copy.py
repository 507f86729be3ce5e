"""An ONNX file copied with other values in some of its constants, and nothing else changed."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from finetune.errors import ModelError
from finetune.formats.onnx_graph import OnnxGraph
from finetune.formats.onnx_refusals import all_nodes
from finetune.formats.onnx_values import Span, spans


@dataclass(frozen=True)
class Place:
    """Where the values of one constant lie. file: of external data, relative to the model; None is the model itself."""

    file: str | None
    spans: tuple[Span, ...]


def places(path: Path, constants: Mapping[str, int]) -> dict[str, Place]:
    """Per constant, whose values take so many bytes. Raises ModelError where some cannot be replaced in place."""
    inside = spans(path.read_bytes(), constants)
    held = OnnxGraph(onnx.load(path, load_external_data=False)).constants
    found: dict[str, Place] = {}
    for name, size in constants.items():
        tensor = held[name]
        if isinstance(tensor, TensorProto) and uses_external_data(tensor):
            info = ExternalDataInfo(tensor)
            start = info.offset or 0
            found[name] = Place(info.location, (Span(start, start + size),))
        else:
            found[name] = Place(None, tuple(inside.get(name, ())))
        if sum(span.end - span.start for span in found[name].spans) != size:
            raise ModelError(
                f"{path}: the values of {name!r} are stored in a form that cannot be replaced in place; load the "
                "file with onnx.load, give that constant raw_data (onnx.numpy_helper.from_array), save it again and "
                "recalibrate that"
            )
    return found


def external_files(model: ModelProto) -> tuple[str, ...]:
    """The files beside the model that its tensors lie in, relative to it. model: loaded without external data."""
    attributes = [a for node in all_nodes(model.graph) for a in node.attribute]
    tensors = [*model.graph.initializer, *(a.t for a in attributes if a.HasField("t"))]
    return tuple(dict.fromkeys(ExternalDataInfo(t).location for t in tensors if uses_external_data(t)))


def write_copy(
    source: Path, destination: Path, updates: Mapping[str, NDArray], check: Callable[[Path], None]
) -> int:
    """How many bytes differ. updates: new values by constant. check: called with the finished copy of the model.

    All files of the copy are made in a folder of another name beside their place, and moved when they are whole
    and `check` raised nothing, the model itself last. Raises ModelError, with nothing left behind.
    """
    source, destination = source.resolve(), destination.absolute()
    beside = external_files(onnx.load(source, load_external_data=False))
    targets = [destination.parent / name for name in beside] + [destination]
    _refuse_taken(targets, destination, beside)
    made = next((p for p in reversed(destination.parents) if not p.exists()), None)
    unfinished = destination.with_name(f".{destination.name}.{uuid.uuid4().hex[:8]}")
    moved: list[Path] = []
    try:
        unfinished.mkdir(parents=True)
        copies = [unfinished / name for name in (*beside, destination.name)]
        for name, copy in zip((*beside, source.name), copies, strict=True):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.parent / name, copy)
        changed = _patch(copies[-1], updates)
        check(copies[-1])
        for copy, target in zip(copies, targets, strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            copy.rename(target)
            moved.append(target)
        shutil.rmtree(unfinished)
    except BaseException as error:
        for path in moved:
            path.unlink(missing_ok=True)
        shutil.rmtree(made or unfinished, ignore_errors=True)
        if isinstance(error, OSError | shutil.Error):
            raise ModelError(f"{destination}: cannot be written ({error})") from error
        raise
    return changed


def _refuse_taken(targets: Iterable[Path], destination: Path, beside: Iterable[str]) -> None:
    outside = [
        name for name in beside if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts
    ]
    if outside:
        raise ModelError(f"{destination}: external data outside of the model's own folder: {outside[0]}")
    taken = [path for path in targets if path.exists()]
    if taken:
        raise ModelError(
            f"{taken[0]}: exists; give a place that does not, in a folder of its own where the model has external data"
        )


def _patch(copy: Path, updates: Mapping[str, NDArray]) -> int:
    """How many bytes of the copy's files it changed."""
    little = {
        name: values.astype(values.dtype.newbyteorder("<")).tobytes() for name, values in updates.items()
    }
    found = places(copy, {name: len(values) for name, values in little.items()})
    changed = 0
    for name, place in found.items():
        with (copy if place.file is None else copy.parent / place.file).open("r+b") as file:
            done = 0
            for span in place.spans:
                file.seek(span.start)
                before = file.read(span.end - span.start)
                after = little[name][done : done + len(before)]
                changed += sum(a != b for a, b in zip(before, after, strict=True))
                file.seek(span.start)
                file.write(after)
                done += len(before)
    return changed
