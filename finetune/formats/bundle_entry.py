"""What a checkpoint's index says of one tensor (BundleEntryProto) and of all of them (BundleHeaderProto)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from finetune.formats.sorted_table import Block, Row
from finetune.wire import BYTES, FIXED32, VARINT, Buffer, DamagedError, Field, fields

STRING = 7
DTYPES: dict[int, np.dtype] = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    4: np.dtype("u1"),
    5: np.dtype("<i2"),
    6: np.dtype("i1"),
    9: np.dtype("<i8"),
    10: np.dtype("?"),
    14: np.dtype(ml_dtypes.bfloat16),
    17: np.dtype("<u2"),
    19: np.dtype("<f2"),
    22: np.dtype("<u4"),
    23: np.dtype("<u8"),
}
"""TensorFlow's DataType numbers of the tensors that a variable can hold."""

MOST = 1 << 62
"""Greater numbers are negative ones in disguise, or damage."""


@dataclass(frozen=True)
class Header:
    """shards: how many data files there are."""

    shards: int
    big_endian: bool


@dataclass(frozen=True)
class Entry:
    """shard, offset, size: where the bytes lie. checksum_at: where in the index their checksum lies, if it does.

    sliced: the tensor is in pieces under other keys (a partitioned variable).
    """

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    checksum_at: int | None
    sliced: bool
    block: Block

    @property
    def numpy_dtype(self) -> np.dtype | None:
        """None where NumPy has no such type, as for strings."""
        return DTYPES.get(self.dtype)


def read_header(index: Buffer, row: Row) -> Header:
    """Raises DamagedError."""
    values = {f.number: f.value for f in fields(index, row.start, row.end)}
    return Header(values.get(1, 0), values.get(2, 0) != 0)


def read_entry(index: Buffer, row: Row) -> Entry:
    """Raises DamagedError where the numbers contradict each other."""
    found = {f.number: f for f in fields(index, row.start, row.end)}
    numbers = {n: found[n].value for n in (1, 3, 4, 5) if n in found and _is(found[n], VARINT)}
    checksum = found.get(6)
    entry = Entry(
        dtype=numbers.get(1, 0),
        shape=tuple(_dimensions(index, found[2])) if 2 in found else (),
        shard=numbers.get(3, 0),
        offset=numbers.get(4, 0),
        size=numbers.get(5, 0),
        checksum=checksum.value if checksum else 0,
        checksum_at=checksum.start if checksum and _is(checksum, FIXED32) else None,
        sliced=7 in found,
        block=row.block,
    )
    _check_size(entry)
    return entry


def _is(field: Field, kind: int) -> bool:
    if field.kind != kind:
        raise DamagedError(f"field {field.number} of an entry has wire type {field.kind}, expected {kind}")
    return True


def _dimensions(index: Buffer, shape: Field) -> Iterator[int]:
    _is(shape, BYTES)
    for dimension in fields(index, shape.start, shape.end):
        if dimension.number == 2 and _is(dimension, BYTES):
            sizes = [f.value for f in fields(index, dimension.start, dimension.end) if f.number == 1]
            yield sizes[-1] if sizes else 0


def _check_size(entry: Entry) -> None:
    if max((entry.shard, entry.offset, entry.size, *entry.shape)) > MOST:
        raise DamagedError("an entry with a negative size")
    dtype = entry.numpy_dtype
    if dtype is not None and not entry.sliced and math.prod(entry.shape) * dtype.itemsize != entry.size:
        raise DamagedError(f"{entry.size} bytes cannot hold {entry.shape} values of {dtype}")
