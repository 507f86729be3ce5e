"""Whether the HDF5 library gets through a file: on some damaged ones it never returns, or ends the whole process.

It has no limit of its own (seen: a variable-length attribute whose heap was damaged, HDF5 1.14), so everything is read
once in a process that can be stopped, before this one reads it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from finetune.errors import ModelError

SECONDS, BYTES_PER_SECOND = 30, 10_000_000
"""Patience with any file, and what a slow disk and processor manage beyond that."""

RESTORE = "restore it from where it was saved"

READ_ALL = """
import io, sys
import h5py
def read(name, thing):
    dict(thing.attrs)
    if isinstance(thing, h5py.Dataset):
        thing[()]
with h5py.File(io.BytesIO(sys.stdin.buffer.read())) as file:
    dict(file.attrs)
    file.visititems(read)
"""


def refuse_endless(content: bytes, path: Path) -> None:
    """Raises ModelError where reading the bytes of an HDF5 file does not end, or kills the process that does it.

    What it refuses in words is for those to report who read it next.
    """
    patience = SECONDS + len(content) / BYTES_PER_SECOND
    command = [sys.executable, "-I", "-c", READ_ALL]
    try:
        done = subprocess.run(command, input=content, capture_output=True, timeout=patience, check=False)
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"{path}: damaged: reading it does not end; {RESTORE}") from error
    if done.returncode < 0:
        raise ModelError(
            f"{path}: damaged: reading it ends the process (signal {-done.returncode}); {RESTORE}"
        )
