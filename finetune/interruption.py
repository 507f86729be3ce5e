"""Ctrl-C and SIGTERM in a training: the first waits for the end of the step, so that nothing is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def first_signal_waits() -> Iterator[Callable[[], bool]]:
    """Inside the block the first of these signals is only noted; a second one does what it did before.

    Yields who says whether one was noted: whoever takes the steps ends the work then. What was not seen inside is a
    KeyboardInterrupt at the end of the block. Signals that are ignored, or end the process by the system's own hand,
    stay as they are, and outside of the main thread Python lets none be taken over.
    """
    noted: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        earlier = before[signal.Signals(number)]
        if noted and callable(earlier):
            earlier(number, frame)
        noted.append(number)

    main = threading.current_thread() is threading.main_thread()
    taken = [number for number, handler in before.items() if main and callable(handler)]
    for number in taken:
        signal.signal(number, note)
    try:
        yield lambda: bool(noted)
    finally:
        for number in taken:
            signal.signal(number, before[number])
    if noted:
        raise KeyboardInterrupt
