"""Processes that train cells side by side; each imports TensorFlow once and shares the cores fairly."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TYPE_CHECKING

from finetune.comparison.grid import Cell
from finetune.comparison.outcome import Outcome
from finetune.errors import FinetuneError

if TYPE_CHECKING:
    from finetune.comparison.workshop import Workshop


class Workers:
    """`jobs` processes; used as a context, after which none is left. prepare: runs first in each of them."""

    def __init__(self, jobs: int, prepare: Callable[[], None] | None = None) -> None:
        threads = max((os.cpu_count() or 1) // jobs, 1)
        self._pool = ProcessPoolExecutor(jobs, get_context("spawn"), _begin, (threads, prepare))

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        # cells that nobody waits for any more are not finished: they are trained when it goes on
        if kind is not None:
            for process in list((self._pool._processes or {}).values()):
                process.kill()
        self._pool.shutdown(cancel_futures=True)

    def train(self, cells: Sequence[Cell]) -> Iterator[tuple[Cell, Outcome]]:
        """Cells and what came of them, as they are finished. Raises FinetuneError where a process dies."""
        waiting: dict[Future[Outcome], Cell] = {self._pool.submit(carried_out, cell): cell for cell in cells}
        try:
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        except BrokenProcessPool as error:
            raise FinetuneError(
                "a process that trained a cell was killed, out of memory perhaps; what was finished is kept: run the "
                "same command again, with fewer --jobs or a smaller data.batch_size"
            ) from error


def _begin(threads: int, prepare: Callable[[], None] | None) -> None:
    # Ctrl-C reaches every process of a terminal; the first one ends the others
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if prepare:
        prepare()
    compute_on(threads)


def compute_on(threads: int) -> None:
    """How many cores this process takes, said before it computes anything."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def carried_out(cell: Cell) -> Outcome:
    """What becomes of a cell in the process that trains it."""
    from finetune.comparison.cell import carry_out

    return carry_out(cell.recipe, _workshop())


@functools.cache
def _workshop() -> Workshop:
    """That of this process."""
    from finetune.comparison.workshop import Workshop

    return Workshop()
