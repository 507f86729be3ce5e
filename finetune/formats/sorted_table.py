"""The sorted table behind a checkpoint's index: blocks of keys and values, each block with its own checksum.

The format is LevelDB's: a footer points at the index block, that at the data blocks; keys share prefixes with
the key before, and a block ends with its restart points, a compression byte and a masked CRC32C.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from finetune.formats.crc32c import masked_crc32c
from finetune.wire import Buffer, DamagedError, varint

MAGIC = 0xDB4775248B80FB57
FOOTER = 48
TRAILER = 5
"""One byte of compression, four of checksum."""


@dataclass(frozen=True)
class Block:
    """Where a block lies: its content without the trailer."""

    start: int
    end: int

    @property
    def checksum_at(self) -> int:
        return self.end + 1


@dataclass(frozen=True)
class Row:
    """One key and where its value lies in the file."""

    key: bytes
    start: int
    end: int
    block: Block


def rows(table: Buffer) -> Iterator[Row]:
    """Every key with its value's place, all checksums verified. Raises DamagedError."""
    if len(table) < FOOTER or struct.unpack_from("<Q", table, len(table) - 8)[0] != MAGIC:
        raise DamagedError("not a checkpoint index, or cut off")
    position, end = len(table) - FOOTER, len(table) - 8
    for _ in ("offset", "size of the metaindex"):
        _, position = varint(table, position, end)
    for pointer in _block_rows(table, _block(table, position, end)):
        yield from _block_rows(table, _block(table, pointer.start, pointer.end))


def seal(table: bytearray, block: Block) -> None:
    """Write the checksum of a block whose content was changed."""
    struct.pack_into("<I", table, block.checksum_at, masked_crc32c(table[block.start : block.end + 1]))


def _block(table: Buffer, position: int, end: int) -> Block:
    """The block that the handle at a position points at, verified."""
    start, position = varint(table, position, end)
    size, _ = varint(table, position, end)
    if size < 4 or start + size + TRAILER > len(table):
        raise DamagedError("an index block lies outside of the file")
    block = Block(start, start + size)
    if masked_crc32c(table[start : block.end + 1]) != struct.unpack_from("<I", table, block.checksum_at)[0]:
        raise DamagedError("the checksum of an index block does not match")
    if table[block.end] != 0:
        raise DamagedError(
            "the index is compressed, which TensorFlow never writes and cannot be changed in place"
        )
    return block


def _block_rows(table: Buffer, block: Block) -> Iterator[Row]:
    restarts = struct.unpack_from("<I", table, block.end - 4)[0]
    end = block.end - 4 - 4 * restarts
    if end < block.start:
        raise DamagedError("an index block has more restart points than room")
    position, key = block.start, b""
    while position < end:
        shared, position = varint(table, position, end)
        own, position = varint(table, position, end)
        length, position = varint(table, position, end)
        if shared > len(key) or own + length > end - position:
            raise DamagedError("a row of the index runs over the end of its block")
        key = key[:shared] + bytes(table[position : position + own])
        position += own
        yield Row(key, position, position + length, block)
        position += length
