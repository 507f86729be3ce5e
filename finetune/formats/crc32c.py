"""CRC32C (Castagnoli, RFC 3720) in NumPy: the checksum of every block and tensor in a TensorFlow checkpoint.

A CRC is linear over GF(2). So the data are split into lanes, all lanes take one byte at a time together, and
neighbouring lanes are joined in pairs: register(a + b) = shift(register(a), len(b)) ^ register(b).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

UInt32 = NDArray[np.uint32]

POLYNOMIAL = 0x82F63B78
ONES = 0xFFFFFFFF
PIECE = 1 << 24
"""Bytes worked on at a time; a lane is a copy of its bytes, so this bounds the memory."""
SHORT = 1 << 10
"""Up to here a loop over the bytes is faster than lanes."""


def _byte_table() -> UInt32:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> np.uint32(1)) ^ np.where(table & np.uint32(1), np.uint32(POLYNOMIAL), np.uint32(0))
    return table


TABLE = _byte_table()
ENTRIES = [int(entry) for entry in TABLE]


def crc32c(data: bytes | bytearray | memoryview) -> int:
    """The checksum of all bytes."""
    view = memoryview(data)
    register = ONES
    for start in range(0, len(view), PIECE):
        piece = view[start : start + PIECE]
        register = _short(piece, register) if len(piece) <= SHORT else _long(piece, register)
    return register ^ ONES


def masked_crc32c(data: bytes | bytearray | memoryview) -> int:
    """As checkpoints store it: rotated and offset, since the CRC of data that hold a CRC is a weak one."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & ONES


def _short(data: memoryview, register: int) -> int:
    for byte in data:
        register = ENTRIES[(register ^ byte) & 255] ^ (register >> 8)
    return register


def _long(data: memoryview, register: int) -> int:
    # the register in front of the data is the same as it XORed into their first four bytes
    head = bytes(a ^ b for a, b in zip(data[:4], register.to_bytes(4, "little"), strict=True))
    count = 1 << (len(data).bit_length() // 2 + 2)
    length = -(-len(data) // count)
    # zeros in front leave a register of zero as it is
    lanes = np.zeros(count * length, np.uint8)
    start = lanes.size - len(data)
    lanes[start:] = np.frombuffer(data, np.uint8)
    lanes[start : start + 4] = np.frombuffer(head, np.uint8)
    registers = np.zeros(count, np.uint32)
    for column in np.ascontiguousarray(lanes.reshape(count, length).T):
        registers = TABLE[(registers ^ column) & np.uint32(255)] ^ (registers >> np.uint32(8))
    return _joined(registers, length)


def _joined(registers: UInt32, length: int) -> int:
    """One register of neighbouring lanes of `length` bytes each; their number is a power of two."""
    shift = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for _ in range(length):
        shift = TABLE[shift & np.uint32(255)] ^ (shift >> np.uint32(8))
    while registers.size > 1:
        registers = _shifted(registers[::2], shift) ^ registers[1::2]
        shift = _shifted(shift, shift)
    return int(registers[0])


def _shifted(registers: UInt32, shift: UInt32) -> UInt32:
    """Each register after so many zero bytes. shift: what becomes of each of its 32 bits."""
    result = np.zeros_like(registers)
    for bit in range(32):
        result ^= np.where(registers >> np.uint32(bit) & np.uint32(1), shift[bit], np.uint32(0))
    return result
