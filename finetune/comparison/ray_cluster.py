"""Cells on a Ray cluster, for grids that outgrow one machine: as many at once as it has room for.

A cell takes one CPU, and a GPU where the cluster has any. Every node needs finetune, and what the recipe reads at the
same paths. A cell whose node goes away is trained on another one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from finetune.comparison.grid import Cell
from finetune.comparison.outcome import Outcome
from finetune.comparison.workers import carried_out, compute_on, leave_imports_alone
from finetune.errors import FinetuneError, InputError

RETRIES = 3
"""Times that a cell whose process or node died is begun anew."""


class RayCluster:
    """The cluster that RAY_ADDRESS names, or the one on this machine; used as a context, and left as it was found.

    prepare: runs first in each process. Raises InputError on entering where Ray is not installed, or no cluster found.
    """

    def __init__(self, prepare: Callable[[], None] | None = None) -> None:
        self._prepare = prepare
        self._waiting: dict[Any, Cell] = {}

    def __enter__(self) -> RayCluster:
        # Ray would install the project anew on every node, which takes a network and the sources
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        address = os.environ.get("RAY_ADDRESS", "auto")
        try:
            import ray

            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except ImportError as error:
            raise InputError("--ray: needs the package ray; pip install 'finetune[ray]'") from error
        except (ConnectionError, ValueError) as error:
            raise InputError(
                f"--ray: no Ray cluster found at {address!r}; start one with `ray start --head`, or set RAY_ADDRESS to "
                "its address"
            ) from error
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        self._train = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(_carried_out)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        import ray

        # cells that nobody waits for any more are not finished: they are trained when it goes on
        for waiting in self._waiting:
            ray.cancel(waiting, force=True)
        ray.shutdown()

    def train(self, due: Callable[[], Sequence[Cell]]) -> Iterator[tuple[Cell, Outcome]]:
        """As `Workers.train`. Raises FinetuneError where Ray gives a cell up."""
        import ray

        while True:
            begun = {cell.key for cell in self._waiting.values()}
            new = [cell for cell in due() if cell.key not in begun]
            self._waiting |= {self._train.remote(cell, self._prepare): cell for cell in new}
            if not self._waiting:
                return
            [done], _ = ray.wait(list(self._waiting), num_returns=1)
            try:
                outcome = ray.get(done)
            except (ray.exceptions.RayError, ImportError) as error:
                raise FinetuneError(
                    f"--ray: {self._waiting[done].words}: {str(error).strip().splitlines()[-1]}; what was finished is "
                    "kept: run the same command again, once every node has finetune, its data and memory for a cell"
                ) from error
            yield self._waiting.pop(done), outcome


_begun: list[bool] = []
"""Whether this process, in which Ray trains one cell after the other, is ready for them."""


def _carried_out(cell: Cell, prepare: Callable[[], None] | None) -> Outcome:
    if not _begun:
        if prepare:
            prepare()
        compute_on(1)
        leave_imports_alone()
        _begun.append(True)
    return carried_out(cell)
