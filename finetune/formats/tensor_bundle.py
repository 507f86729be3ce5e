"""A TensorFlow checkpoint (TensorBundle) read, verified and changed in place, without TensorFlow.

`variables.index` maps each key to dtype, shape and place of its tensor and to the masked CRC32C of its bytes;
`variables.data-00000-of-00002` hold the bytes. Values of the same dtype and shape can therefore be written over
the old ones: only their bytes, their checksums and the checksums of the index blocks around those change.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune.errors import ModelError
from finetune.formats.bundle_entry import STRING, Entry, Header, read_entry, read_header
from finetune.formats.crc32c import masked_crc32c
from finetune.formats.sorted_table import rows, seal
from finetune.formats.string_tensor import read_strings
from finetune.wire import DamagedError


class TensorBundle:
    """One checkpoint, by its prefix: `model/variables/variables`.

    Opening it reads and verifies the index; the data are read and verified when they are asked for.
    Raises ModelError where a file is missing, cut off or damaged.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        self.index_path = prefix.with_name(prefix.name + ".index")
        try:
            self._index = bytearray(self.index_path.read_bytes())
        except OSError as error:
            raise ModelError(f"{self.index_path}: cannot be read ({error.strerror})") from error
        try:
            self._header, self._entries = _read_index(self._index)
        except DamagedError as error:
            raise ModelError(f"{self.index_path}: damaged: {error}; restore it from a copy") from error
        if self._header.big_endian:
            raise ModelError(
                f"{self.index_path}: written on a big-endian machine; load and save it on this one"
            )

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key, sorted as the file has them."""
        return tuple(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def shape(self, key: str) -> tuple[int, ...]:
        return self._entry(key).shape

    def dtype(self, key: str) -> np.dtype | None:
        """None for strings and whatever else NumPy has no type for."""
        return self._entry(key).numpy_dtype

    def sliced(self, key: str) -> bool:
        """Whether the tensor is stored in pieces, as a partitioned variable is."""
        return self._entry(key).sliced

    def read(self, key: str) -> NDArray:
        """A copy of one tensor of numbers. Raises ModelError where it is damaged, sliced or of another kind."""
        entry = self._numbers(key)
        raw = self._bytes(key, entry)
        if masked_crc32c(raw) != entry.checksum:
            raise ModelError(f"{self._data_path(entry)}: damaged: the checksum of {key!r} does not match")
        return np.frombuffer(raw, entry.numpy_dtype).reshape(entry.shape).copy()

    def read_string(self, key: str) -> bytes:
        """One string. Raises ModelError where it is damaged or is not a single string."""
        entry = self._entry(key)
        if entry.dtype != STRING or entry.shape:
            raise ModelError(f"{self.index_path}: {key!r} is not a single string")
        return self._strings(key, entry)[0]

    def verify(self) -> None:
        """Read everything once. Raises ModelError with one line for each damaged tensor."""
        problems: list[str] = []
        for key, entry in self._entries.items():
            try:
                if entry.dtype == STRING:
                    self._strings(key, entry)
                elif entry.numpy_dtype is not None and not entry.sliced:
                    self.read(key)
            except ModelError as error:
                problems.extend(error.problems)
        if problems:
            raise ModelError(dict.fromkeys(problems))

    def patch(self, updates: Mapping[str, ArrayLike]) -> dict[str, int]:
        """Write new values over the old, rounded to the dtype stored; file name -> how many bytes differ now.

        Never call it on a model in service. Raises ModelError, before anything is written, where a key is
        missing, sliced, or has another shape.
        """
        rounded = {key: self._rounded(key, value) for key, value in updates.items()}
        changed: dict[str, int] = {}
        before = bytes(self._index)
        for key, raw in rounded.items():
            entry = self._entries[key]
            path = self._data_path(entry)
            changed[path.name] = changed.get(path.name, 0) + _differing(self._bytes(key, entry), raw)
            with path.open("r+b") as data:
                data.seek(entry.offset)
                data.write(raw)
            struct.pack_into("<I", self._index, entry.checksum_at or 0, masked_crc32c(raw))
        for block in {self._entries[key].block for key in rounded}:
            seal(self._index, block)
        self.index_path.write_bytes(self._index)
        _, self._entries = _read_index(self._index)
        return changed | {self.index_path.name: _differing(before, bytes(self._index))}

    def _entry(self, key: str) -> Entry:
        if key not in self._entries:
            raise ModelError(f"{self.index_path}: no tensor {key!r}")
        return self._entries[key]

    def _numbers(self, key: str) -> Entry:
        entry = self._entry(key)
        if entry.sliced:
            raise ModelError(
                f"{self.index_path}: {key!r} is stored in slices (a partitioned variable); "
                "save the model again with its variables in one piece"
            )
        if entry.numpy_dtype is None:
            raise ModelError(f"{self.index_path}: {key!r} holds TensorFlow type {entry.dtype}, not numbers")
        return entry

    def _rounded(self, key: str, value: ArrayLike) -> bytes:
        entry = self._numbers(key)
        array = np.asarray(value)
        if array.shape != entry.shape:
            raise ModelError(f"{self.index_path}: {key!r} has shape {entry.shape}, not {array.shape}")
        if entry.checksum_at is None:
            raise ModelError(f"{self.index_path}: {key!r} has no checksum to replace; save the model again")
        self._bytes(key, entry)
        return np.ascontiguousarray(array, entry.numpy_dtype).tobytes()

    def _strings(self, key: str, entry: Entry) -> list[bytes]:
        try:
            return read_strings(self._bytes(key, entry), math.prod(entry.shape), entry.checksum)
        except DamagedError as error:
            raise ModelError(f"{self._data_path(entry)}: damaged: {key!r}: {error}") from error

    def _bytes(self, key: str, entry: Entry) -> bytes:
        path = self._data_path(entry)
        try:
            if path.stat().st_size < entry.offset + entry.size:
                raise ModelError(f"{path}: damaged: cut off before the end of {key!r}")
            with path.open("rb") as data:
                data.seek(entry.offset)
                return data.read(entry.size)
        except OSError as error:
            raise ModelError(f"{path}: cannot be read ({error.strerror})") from error

    def _data_path(self, entry: Entry) -> Path:
        return self.prefix.with_name(
            f"{self.prefix.name}.data-{entry.shard:05d}-of-{self._header.shards:05d}"
        )


def _read_index(index: bytearray) -> tuple[Header, dict[str, Entry]]:
    found = list(rows(index))
    if not found or found[0].key:
        raise DamagedError("the index has no header")
    entries = {row.key.decode("utf-8", "surrogateescape"): read_entry(index, row) for row in found[1:]}
    return read_header(index, found[0]), entries


def _differing(before: bytes, after: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(before, np.uint8) != np.frombuffer(after, np.uint8)))
