"""A full disk, told by TensorFlow in an error of its own kind, as the error that Python has for it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = {os.strerror(number): number for number in (errno.ENOSPC, errno.EDQUOT)}
"""What the system says -> its number. TensorFlow has the words, under the class that it has for lack of memory too."""


@contextmanager
def full_disk_as_os_error(place: Path) -> Iterator[None]:
    """Raises OSError about `place` where TensorFlow ran out of room inside the block; all else as it is."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        number = next((number for words, number in FULL.items() if words in str(error)), None)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(place)) from error
