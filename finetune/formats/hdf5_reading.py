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

MEMORY, TIMES = 1_000_000_000, 10
"""Bytes that reading any file may take, and times its size beyond that; some damaged ones take more and more."""

TOO_LARGE = 3
"""Exit code of the process that reads, where that did not suffice."""

RESTORE = "restore it from where it was saved"

READ_ALL = """
import io, resource, sys
import h5py
def limit(more):
    # what is mapped already depends on the machine: threads of NumPy reserve a lot on many cores
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + more, resource.getrlimit(resource.RLIMIT_AS)[1]))
def read(name, thing):
    dict(thing.attrs)
    if isinstance(thing, h5py.Dataset):
        thing[()]
content = sys.stdin.buffer.read()
if sys.platform == "linux":
    limit(MEMORY + TIMES * len(content))
try:
    with h5py.File(io.BytesIO(content)) as file:
        dict(file.attrs)
        file.visititems(read)
except MemoryError:
    sys.exit(TOO_LARGE)
"""


def program() -> str:
    """What the process runs that reads all of a file."""
    return f"MEMORY, TIMES, TOO_LARGE = {MEMORY}, {TIMES}, {TOO_LARGE}\n{READ_ALL}"


def refuse_endless(content: bytes, path: Path) -> None:
    """Raises ModelError where reading the bytes of an HDF5 file does not end, kills the process that does it, or takes
    much more memory than the file has bytes.

    What it refuses in words is for those to report who read it next.
    """
    patience = SECONDS + len(content) / BYTES_PER_SECOND
    command = [sys.executable, "-I", "-c", program()]
    try:
        done = subprocess.run(command, input=content, capture_output=True, timeout=patience, check=False)
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"{path}: damaged: reading it does not end; {RESTORE}") from error
    if done.returncode < 0:
        raise ModelError(
            f"{path}: damaged: reading it ends the process (signal {-done.returncode}); {RESTORE}"
        )
    if done.returncode == TOO_LARGE:
        raise ModelError(f"{path}: damaged: reading it takes more memory than it can hold numbers; {RESTORE}")
