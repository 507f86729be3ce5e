"""Seconds by phase of a run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Stopwatch:
    """Adds up wall-clock seconds under names; `seconds` has them in the order of their first use."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._open: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._open[name] = time.perf_counter()
        try:
            yield
        finally:
            self.add({name: time.perf_counter() - self._open.pop(name)})

    def add(self, seconds: Mapping[str, float]) -> None:
        """What an earlier sitting took."""
        for name, value in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value

    def so_far(self) -> dict[str, float]:
        """With what the phases that are not over have taken until now."""
        now, total = time.perf_counter(), Stopwatch()
        total.add(self.seconds)
        total.add({name: now - begun for name, begun in self._open.items()})
        return total.seconds
