"""A call that may never come back, waited for so long and no longer."""

from __future__ import annotations

import threading
from collections.abc import Callable


def within(patience: float, act: Callable[[], None]) -> None:
    """Do it in a thread of its own, and raise what it raises; TimeoutError after `patience` seconds.

    What hangs goes on by itself then, and does not keep the process alive.
    """
    raised: list[Exception] = []

    def attempt() -> None:
        try:
            act()
        # it belongs to whoever waits
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=attempt, name="MLflow", daemon=True)
    thread.start()
    thread.join(patience)
    if raised:
        raise raised[0]
    if thread.is_alive():
        raise TimeoutError(f"no answer within {patience:g} s")
