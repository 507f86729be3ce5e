"""An ONNX model in service: read by onnx, run by onnxruntime, written by replacing bytes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ValueInfoProto, helper

from finetune.batchnorm.matching import Affine
from finetune.batchnorm.passes import Measured, exact, pooled
from finetune.errors import ModelError
from finetune.formats.deployed import Batch, DeployedSite, InputSpec
from finetune.formats.onnx_batch_mode import batch_mode
from finetune.formats.onnx_copy import places, write_copy
from finetune.formats.onnx_graph import OnnxGraph
from finetune.formats.onnx_network import OnnxNetwork
from finetune.formats.onnx_refusals import refuse_closed, refuse_unmeasurable
from finetune.formats.onnx_session import in_words, inferred, session
from finetune.formats.onnx_sites import group, is_bn, named


class OnnxModel:
    """See finetune.formats.deployed."""

    path: Path
    format: str
    sites: Sequence[DeployedSite]
    unused: Sequence[str]
    inputs: Sequence[InputSpec]
    batch_size: int | None

    def __init__(self, path: Path) -> None:
        self.path = path
        with in_words(path):
            self._graph = OnnxGraph(onnx.load(path))
            model = self._graph.model
            refuse_closed(self._graph, path)
            live = [node for node in self._graph.live if is_bn(node)]
            refuse_unmeasurable(self._graph, live, path)
            self.sites = self._sites = group(self._graph, live)
            places(path, {name: values.nbytes for name, values in self._statistics().items()})
            self._types = self._inferred()
        producer = f"{model.producer_name} {model.producer_version}".strip()
        self.format = f"ONNX (opset {self._graph.opset}{', ' if producer else ''}{producer})"
        running = {node.output[0] for node in live}
        idle = [node for node in model.graph.node if is_bn(node) and node.output[0] not in running]
        self.unused = [named(node) for node in idle]
        self.inputs = [_spec(self._types[name]) for name in self._graph.inputs]
        self.batch_size = next((s.shape[0] for s in self.inputs if s.shape and s.shape[0] is not None), None)
        self._session: Any = None
        self._session_for: list[bytes] = []

    def _inferred(self) -> dict[str, ValueInfoProto]:
        made = [name for node in self._graph.live for name in node.output if name]
        given = {each.name: each for each in self._graph.model.graph.input}
        return inferred(self._graph.model, made) | given

    def _statistics(self) -> dict[str, NDArray]:
        """In force, by name of the constant; the file's dtype and shape."""
        return {name: self._graph.values(name) for site in self._sites for name in (site.mean, site.variance)}

    def network(self) -> OnnxNetwork:
        """To be cut at the sites; its inputs are `inputs`, in their order."""
        divisible = self.batch_size is None
        return OnnxNetwork(self._graph, self._sites, self._types, self.path, divisible=divisible)

    def one_pass(self, batches: Iterable[Batch], affine: Mapping[str, Affine] | None = None) -> Measured:
        """Per site the moments under precise BN, and the number of images.

        Raises ValueError where there is none, and where batches that are needed twice can be read only once.
        """

        def once(precise: Collection[int]) -> Measured:
            run = batch_mode(self.network(), affine or {}, precise)
            return pooled(batches, lambda first: run, lambda batch: len(batch[self.inputs[0].name]))

        return exact(once, batches, [site.epsilon for site in self._sites])

    def predict(self, batch: Batch) -> dict[str, NDArray]:
        """The outputs, by name, under the statistics in force."""
        with in_words(self.path):
            return self._run(self._in_force(), batch)

    def _in_force(self) -> Any:
        """A session as a server runs the file, with the statistics in force."""
        now = [values.tobytes() for values in self._statistics().values()]
        if self._session is None or now != self._session_for:
            self._session, self._session_for = session(self._graph.model), now
        return self._session

    def _run(self, model: Any, batch: Batch) -> dict[str, NDArray]:
        fed = {each.name: np.asarray(batch[each.name], each.dtype) for each in self.inputs}
        names = [output.name for output in model.get_outputs()]
        return dict(zip(names, model.run(names, fed), strict=True))

    def write(self, destination: Path) -> int:
        """A copy with the statistics in force; how many bytes differ. Raises ModelError, with nothing left behind.

        Files of external data lie beside it under their own names, as the copy refers to them.
        """
        with in_words(self.path):
            return write_copy(self.path, destination, self._statistics(), self._check)

    def _check(self, copy: Path) -> None:
        """Raise ModelError where a copy holds, or gives in onnxruntime, anything else than what is in force."""
        written = OnnxGraph(onnx.load(copy))
        wanted = self._statistics()
        wrong = [
            name for name, values in wanted.items() if written.values(name).tobytes() != values.tobytes()
        ]
        served = session(copy)
        noise = self._noise()
        if noise is not None and not wrong:
            ours, theirs = self._run(self._in_force(), noise), self._run(served, noise)
            wrong = [name for name in ours if not np.array_equal(ours[name], theirs[name], equal_nan=True)]
        if wrong:
            raise ModelError(
                f"{self.path}: {wrong[0]!r} of the copy is not what was written; the file is of a make that is "
                "not known"
            )

    def _noise(self) -> Batch | None:
        """Made-up inputs, where the file says how large they are; an open first axis is one image."""
        random = np.random.default_rng(0)
        noise: dict[str, NDArray] = {}
        for each in self.inputs:
            sizes = each.shape or (None, None)
            shape = [size for size in (sizes[0] or 1, *sizes[1:]) if size is not None]
            if len(shape) != len(sizes):
                return None
            noise[each.name] = random.uniform(0, 1, shape).astype(each.dtype)
        return noise


def _spec(described: ValueInfoProto) -> InputSpec:
    tensor = described.type.tensor_type
    shape = tuple(d.dim_value or None for d in tensor.shape.dim) if tensor.HasField("shape") else None
    return InputSpec(described.name, shape, str(helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
