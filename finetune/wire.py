"""Protocol buffer fields with the offsets of their values, read without a schema and never beyond the end."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

Buffer = bytes | bytearray | memoryview

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class DamagedError(Exception):
    """The bytes cannot be what they should be; the message says which and why."""


@dataclass(frozen=True)
class Field:
    """One field. number: in the schema. value: of a number. start, end: where the bytes of its value lie."""

    number: int
    kind: int
    value: int
    start: int
    end: int


def varint(data: Buffer, position: int, end: int) -> tuple[int, int]:
    """(value, position behind it); seven bits a byte, lowest first, at most 64 bits."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise DamagedError("a number runs over the end")
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise DamagedError("a number of more than 64 bits")


def fields(data: Buffer, position: int, end: int) -> Iterator[Field]:
    """The fields of one message, in the order in which they lie there."""
    while position < end:
        tag, position = varint(data, position, end)
        number, kind = tag >> 3, tag & 7
        value, start, position = _value(data, kind, position, end)
        yield Field(number, kind, value, start, position)


def _value(data: Buffer, kind: int, position: int, end: int) -> tuple[int, int, int]:
    """(number, start, end) of the value at a position."""
    if kind == VARINT:
        value, after = varint(data, position, end)
        return value, position, after
    if kind == BYTES:
        length, position = varint(data, position, end)
        if length > end - position:
            raise DamagedError("a field runs over the end")
        return length, position, position + length
    size = {FIXED32: 4, FIXED64: 8}.get(kind)
    if size is None or size > end - position:
        raise DamagedError(f"a field of wire type {kind} that is unknown or cut off")
    return struct.unpack_from("<I" if size == 4 else "<Q", data, position)[0], position, position + size
