"""A thread that sends what a training has to say: a store that is slow, silent or away costs the training nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Sender(Generic[Item]):
    """Hands items on in the order in which they were posted, all that wait in one go.

    However slow the store is, no more than one request is under way and one waits. After the first failure the rest
    is dropped. The thread lives while there is something to send, and does not keep the process alive.
    """

    def __init__(self, send: Callable[[Sequence[Item]], None]) -> None:
        self._send = send
        self._waiting: list[Item] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    def post(self, items: Sequence[Item]) -> None:
        """Returns at once. Raises what sending earlier items raised."""
        with self._changed:
            if self._failure is not None:
                raise self._failure
            self._waiting += items
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="MLflow", daemon=True)
                self._thread.start()

    def settle(self, patience: float) -> None:
        """Wait until all is sent, `patience` seconds at most.

        Raises what sending raised, and TimeoutError where it is still under way: what waits is dropped then.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._thread is None, patience):
                self._waiting.clear()
                self._failure = TimeoutError(f"no answer within {patience:g} s")
            if self._failure is not None:
                raise self._failure

    def _work(self) -> None:
        while items := self._next():
            try:
                self._send(items)
            # it is raised where the run can say so; this thread has nobody to tell
            except Exception as error:
                with self._changed:
                    self._failure = self._failure or error

    def _next(self) -> list[Item]:
        """All that waits; nothing ends the thread."""
        with self._changed:
            items = [] if self._failure is not None else self._waiting
            self._waiting = []
            if not items:
                self._thread = None
                self._changed.notify_all()
            return items
