"""When a checkpoint is due: often enough that little is lost, seldom enough that it costs little."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

REST = 50.0
"""What a checkpoint took, so many times over, is trained before the next: they have 2 % of the time at most."""


class Pace:
    """Within an epoch a checkpoint is due `seconds` after the last one, at its end at once; neither before the last one
    has had its rest (`REST`), so that epochs of a second and networks of gigabytes are slowed as little as others.

    clock: seconds that never go back, and stand still while the machine sleeps.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every, self._clock = seconds, clock
        self._last, self._took = clock(), 0.0

    @property
    def within_an_epoch(self) -> bool:
        return self._clock() - self._last >= max(self._every, REST * self._took)

    @property
    def after_an_epoch(self) -> bool:
        return self._clock() - self._last >= REST * self._took

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Inside the block a checkpoint is written."""
        begun = self._clock()
        yield
        self._last = self._clock()
        self._took = self._last - begun
