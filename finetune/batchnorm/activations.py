"""The tensors that cross a cut, batch by batch, within a memory budget; what does not fit lies in a temporary file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64
"""Bytes; at any other address TensorFlow takes no memory of ours."""


class ReadBack(np.ndarray):
    """What was on disk. Nobody else holds it: a backend may take its memory as it is."""

    @property
    def aligned(self) -> bool:
        """Whether it is whole and begins at a multiple of ALIGNMENT, as it does when it is read."""
        return self.flags.c_contiguous and self.ctypes.data % ALIGNMENT == 0


@dataclass
class Budget:
    """Bytes of memory that activations may take together. held: taken now; peak: the most there were."""

    memory: int
    held: int = 0
    peak: int = 0
    spilled: int = 0

    def take(self, size: int) -> bool:
        """Whether there is room for so many bytes more; they count as held then, and as spilled otherwise."""
        if self.held + size > self.memory:
            self.spilled += size
            return False
        self.held += size
        self.peak = max(self.peak, self.held)
        return True

    def give_back(self, size: int) -> None:
        self.held -= size


@dataclass(frozen=True)
class _OnDisk:
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype


@dataclass(eq=False)
class Activations:
    """Batches of tensors in the order in which they were put; close it, or drain it, to free them."""

    budget: Budget
    _batches: list[list[Any]] = field(default_factory=list)
    _file: IO[bytes] | None = None

    def put(self, tensors: Sequence[Any]) -> None:
        """Keep one batch. Raises OSError where it belongs on disk and the disk is full."""
        self._batches.append(
            [t if self.budget.take(_size(t)) else self._spill(np.asarray(t)) for t in tensors]
        )

    def __iter__(self) -> Iterator[list[Any]]:
        """Every batch, as often as wanted."""
        for kept in self._batches:
            yield [self._restored(t) for t in kept]

    def drain(self) -> Iterator[list[Any]]:
        """Every batch once; its memory is given back as soon as the next one is asked for."""
        self._batches.reverse()
        while self._batches:
            kept = self._batches.pop()
            yield [self._restored(t) for t in kept]
            self.budget.give_back(sum(_size(t) for t in kept if not isinstance(t, _OnDisk)))
            del kept
        self.close()

    def close(self) -> None:
        """Free memory and file."""
        in_memory = [t for kept in self._batches for t in kept if not isinstance(t, _OnDisk)]
        self.budget.give_back(sum(map(_size, in_memory)))
        self._batches.clear()
        if self._file:
            self._file.close()
            self._file = None

    def _spill(self, values: NDArray[Any]) -> _OnDisk:
        # unlinked from the start, so that no crash leaves it behind
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="finetune-activations-")  # noqa: SIM115 - close() closes it
        offset = self._file.seek(0, 2)
        self._file.write(np.ascontiguousarray(values).view(np.uint8).data)
        return _OnDisk(offset, values.shape, values.dtype)

    def _restored(self, kept: Any) -> Any:
        if not isinstance(kept, _OnDisk) or self._file is None:
            return kept
        self._file.seek(kept.offset)
        size = int(np.prod(kept.shape, dtype=np.int64)) * kept.dtype.itemsize
        values = _aligned(size)
        self._file.readinto(values.data)  # type: ignore[attr-defined]
        return values.view(kept.dtype).reshape(kept.shape).view(ReadBack)


def _aligned(size: int) -> NDArray[np.uint8]:
    """Bytes that begin at a multiple of ALIGNMENT."""
    whole = np.empty(size + ALIGNMENT, np.uint8)
    start = -whole.ctypes.data % ALIGNMENT
    return whole[start : start + size]


def _size(tensor: Any) -> int:
    """Bytes of a NumPy array or a backend's tensor; on a CPU no copy is made for it."""
    return int(np.asarray(tensor).nbytes)
