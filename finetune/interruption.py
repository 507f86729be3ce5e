"""Ctrl-C and SIGTERM in a training: the first waits for the end of its step, and none is lost."""

from __future__ import annotations

import signal
import sys
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


@contextmanager
def stays_an_interruption() -> Iterator[None]:
    """Whatever a KeyboardInterrupt becomes on its way out of the block, it is one at the end.

    Where a signal arrives while TensorFlow's C++ handles an error of its own, pybind11 makes one RuntimeError of the
    two ("ORIGINAL InvalidArgumentError REPLACED BY KeyboardInterrupt"). A signal whose handler raised nothing, as the
    first one in a training, changes no error.
    """
    raised: list[int] = []

    def listening(
        handler: Callable[[int, FrameType | None], object],
    ) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, frame: FrameType | None) -> None:
            try:
                handler(number, frame)
            except KeyboardInterrupt:
                raised.append(number)
                raise

        return handle

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM) if main}
    taken = {number: handler for number, handler in before.items() if callable(handler)}
    for number, handler in taken.items():
        signal.signal(number, listening(handler))
    try:
        yield
    except Exception as error:
        if raised:
            raise KeyboardInterrupt from error
        raise
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)


AGAIN = 0.05
"""Seconds after which a signal that nobody could hear comes again."""


@contextmanager
def comes_again(number: signal.Signals) -> Iterator[None]:
    """Inside the block no KeyboardInterrupt is lost, wherever it is raised; number: a signal that raises one.

    Python runs the handler of a signal wherever the main thread is, and drops what it raises in a destructor or in a
    callback of the garbage collector, such as JAX has: it prints a traceback and goes on. For the main thread.
    """
    before, pending = sys.unraisablehook, list[threading.Timer]()

    def dropped(what: sys.UnraisableHookArgs) -> None:
        if not issubclass(what.exc_type, KeyboardInterrupt):
            before(what)
            return
        main = threading.main_thread().ident or 0
        pending.append(threading.Timer(AGAIN, signal.pthread_kill, (main, number)))
        pending[-1].start()

    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = before
        for timer in pending:
            timer.cancel()
