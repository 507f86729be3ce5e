"""What zipfile, zlib, NumPy and json raise for an archive that was cut off, changed, or made to do harm."""

from __future__ import annotations

import lzma
import struct
import tokenize
import zipfile
import zlib

DAMAGED = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    EOFError,
    ArithmeticError,
    MemoryError,
    # encrypted members, compressions that are not known, and what is nested too deeply
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
)
"""Found by scripts/fuzz.py: neither library bounds them in its documentation."""
