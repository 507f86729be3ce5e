"""Published weights need a network: without one, say so within seconds, and how to do without."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from finetune.errors import WeightsError, first_line

PATIENCE = 5.0
"""Seconds for a connection, and between two arrivals on it; an operating system waits minutes."""


@contextmanager
def fetching(what: str, elsewhere: str, then: str = "give the file as `weights:`") -> Iterator[None]:
    """Around a download: raises WeightsError where it fails. `elsewhere` is Python that saves the weights, `then` what
    one does with them here. A WeightsError of the block itself goes through."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    except WeightsError:
        raise
    # Keras raises bare Exception where a download fails, kagglehub a dozen kinds
    except Exception as error:
        reason = type(error).__name__ if isinstance(error, OSError) else first_line(error)
        raise WeightsError(
            f"{what} could not be fetched ({reason}); where there is a network, run: python -c '{elsewhere}' "
            f"and {then}"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
