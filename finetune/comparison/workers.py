"""Processes that train cells side by side; each imports TensorFlow once and shares the cores fairly."""

from __future__ import annotations

import functools
import gc
import importlib
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait as wait_for
from typing import TYPE_CHECKING

from finetune.comparison.graph_kind import graph_kind
from finetune.comparison.grid import Cell
from finetune.comparison.outcome import Outcome
from finetune.errors import FinetuneError

if TYPE_CHECKING:
    from finetune.comparison.workshop import Workshop


class Workers:
    """`jobs` processes; used as a context, after which none is left. prepare: runs first in each of them.

    Each trains, as long as there are any, cells that run on graphs which it has traced: to trace a step takes longer
    than to train an epoch of a few hundred images.
    """

    def __init__(self, jobs: int, prepare: Callable[[], None] | None = None) -> None:
        threads = max((os.cpu_count() or 1) // jobs, 1)
        self._pools = [
            ProcessPoolExecutor(1, get_context("spawn"), _begin, (threads, prepare)) for _ in range(jobs)
        ]
        self._traced: list[set[str]] = [set() for _ in self._pools]
        self._kinds: dict[str, str] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        for pool in self._pools:
            # cells that nobody waits for any more are not finished: they are trained when it goes on
            if kind is not None:
                for process in list((pool._processes or {}).values()):
                    process.kill()
            pool.shutdown(cancel_futures=True)

    def train(self, due: Callable[[], Sequence[Cell]]) -> Iterator[tuple[Cell, Outcome]]:
        """Cells and what came of them, as they are finished. due: what can be trained now; asked again whenever what
        came of a cell has been taken. Raises FinetuneError where a process dies."""
        running: dict[Future[Outcome], tuple[int, Cell]] = {}
        try:
            while True:
                self._give_out(due(), running)
                if not running:
                    return
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(done)[1], done.result()
        except BrokenProcessPool as error:
            raise FinetuneError(
                "a process that trained a cell was killed, out of memory perhaps; what was finished is kept: run the "
                "same command again, with fewer --jobs or a smaller data.batch_size"
            ) from error

    def _give_out(self, due: Sequence[Cell], running: dict[Future[Outcome], tuple[int, Cell]]) -> None:
        """One cell to each process that has none."""
        begun = {cell.key for _, cell in running.values()}
        waiting = {cell.key: cell for cell in due if cell.key not in begun}
        for number in sorted(set(range(len(self._pools))) - {number for number, _ in running.values()}):
            if not waiting:
                return
            kinds = {key: self._kind_of(cell) for key, cell in waiting.items()}
            elsewhere = set().union(*self._traced) - self._traced[number]
            cell = waiting.pop(suiting(kinds, self._traced[number], elsewhere))
            self._traced[number].add(self._kind_of(cell))
            running[self._pools[number].submit(carried_out, cell)] = (number, cell)

    def _kind_of(self, cell: Cell) -> str:
        if cell.key not in self._kinds:
            self._kinds[cell.key] = graph_kind(cell.recipe)
        return self._kinds[cell.key]


def suiting(kinds: dict[str, str], traced: set[str], elsewhere: set[str]) -> str:
    """The key of the cell that a process had best train next.

    kinds: of the graphs of each waiting cell, in their order. traced: those that the process has. elsewhere: those that
    only others have. What it has comes first, then what nobody has, then the kind with the most cells waiting.
    """
    waiting = Counter(kinds.values())

    def rank(key: str) -> tuple[bool, bool, int]:
        kind = kinds[key]
        return kind not in traced, kind in elsewhere, -waiting[kind]

    return min(kinds, key=rank)


def _begin(threads: int, prepare: Callable[[], None] | None) -> None:
    # Ctrl-C reaches every process of a terminal; the first one ends the others
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    if prepare:
        prepare()
    compute_on(threads)
    leave_imports_alone()


def end_with_parent() -> None:
    """Let this process end when the one that began it is killed. It would train its cell to the end otherwise, beside
    the processes that go on with the comparison."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait_for([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def compute_on(threads: int) -> None:
    """How many cores this process takes, said before it computes anything."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def leave_imports_alone() -> None:
    """Import all that a cell needs, and let no garbage collection look at it again: what it looks at, a million
    objects, would be looked at after every cell, and several times in each."""
    importlib.import_module("finetune.comparison.cell")
    gc.collect()
    gc.freeze()


def carried_out(cell: Cell) -> Outcome:
    """What becomes of a cell in the process that trains it."""
    from finetune.comparison.cell import carry_out

    return carry_out(cell.recipe, _workshop())


@functools.cache
def _workshop() -> Workshop:
    """That of this process."""
    from finetune.comparison.workshop import Workshop

    return Workshop()
