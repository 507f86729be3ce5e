"""Tensors of strings in a checkpoint: all lengths as varints, a checksum of the lengths, then the bytes."""

from __future__ import annotations

import struct

from finetune.formats.crc32c import masked_crc32c
from finetune.wire import DamagedError, varint


def read_strings(raw: bytes, count: int, checksum: int) -> list[bytes]:
    """The strings of a tensor of `count`. Raises DamagedError where the checksum does not match."""
    if count > len(raw):
        raise DamagedError(f"{len(raw)} bytes cannot hold {count} strings")
    lengths, position = [], 0
    for _ in range(count):
        length, position = varint(raw, position, len(raw))
        lengths.append(length)
    if position + 4 + sum(lengths) != len(raw):
        raise DamagedError("the lengths of its strings do not add up")
    content = raw[position:]
    fixed = b"".join(struct.pack("<I" if length < 1 << 32 else "<Q", length) for length in lengths)
    if masked_crc32c(fixed + content) != checksum:
        raise DamagedError("its checksum does not match")
    ends = [4 + sum(lengths[: i + 1]) for i in range(count)]
    return [content[end - length : end] for end, length in zip(ends, lengths, strict=True)]
