"""Exact running statistics, site by site: every site sees what it will see once all are in force.

Each stored mean and biased variance equals the population moments of that site's input over the calibration set
under the final inference graph. For a network whose sites do not feed themselves there is one such set of
statistics, and it depends neither on how the images are batched nor on their order. Measuring all sites under the
current statistics and repeating that would come to it only after as many passes as there are sites, with errors
that grow first; here the network is cut at the sites (finetune.batchnorm.plan) and each piece runs once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from finetune.batchnorm.activations import Activations, Budget
from finetune.batchnorm.moments import PopulationMoments
from finetune.batchnorm.plan import Dataflow, Stage, plan

Segment = Callable[[Sequence[Any]], tuple[list[Any], list[PopulationMoments]]]
"""Runs one piece of a network on one batch: fed tensors -> kept tensors, and moments per site, calls pooled."""

Settle = Callable[[int, PopulationMoments, int], float]
"""Puts in force what was measured at a site on so many images; by how many standard deviations that moved it."""

Combine = Callable[[Sequence[PopulationMoments]], Sequence[PopulationMoments]]
"""The moments of all workers from those of one: each holds a share of the images and its own activations."""

SETTLED, ROUNDING, SWEEPS = 1e-7, 1e-4, 300
"""A loop has settled when nothing moves, or when what moves is rounding that shrinks no more."""


class Network(Protocol):
    """A network that can be cut at its sites."""

    @property
    def dataflow(self) -> Dataflow: ...

    def segment(
        self, feeds: Sequence[str], keeps: Sequence[str], sites: Sequence[int], *, precise: bool
    ) -> Segment:
        """The piece from the fed tensors to the kept ones and the moments of these sites' inputs.

        It uses the running statistics in force when it runs. precise: moments reduced in float64.
        """
        ...


@dataclass(frozen=True)
class Cost:
    """images: measured. peak, spilled: bytes of activations in memory at most, and written to disk in all."""

    images: int
    peak: int
    spilled: int


def layerwise(
    network: Network,
    batches: Iterable[Any],
    settle: Settle,
    *,
    memory: int,
    epsilons: Sequence[float],
    precise: bool = False,
    combine: Combine = tuple,
    watch: Callable[[float], None] = lambda done: None,
) -> Cost:
    """Measure every site of the network and settle it, in the order of its stages.

    batches: the inputs, an array or a tuple of arrays each; read once. memory: bytes that activations may take,
    beyond which they go to a temporary file. epsilons: per site. watch: called with the share that is done.
    Raises ValueError where there is no image and where a site that feeds itself does not come to rest.
    """
    stages = plan(network.dataflow)
    budget, counted, images = Budget(memory), _Counted(batches), 0
    source: Iterator[list[Any]] = iter(counted)
    kept = Activations(budget)
    try:
        for number, stage in enumerate(stages):
            work = _Work(network, stage, epsilons, precise, combine)
            kept = Activations(budget)
            own = work.advance(source, kept)
            moments = combine(own)
            images = of_all_workers(counted.images, own, moments)
            for site, measured in zip(stage.sites, work.exact(moments, kept), strict=True):
                settle(site, measured, images)
            for loop in stage.loops:
                work.come_to_rest(loop, kept, settle, images)
            source = kept.drain()
            watch((number + 1) / len(stages))
    finally:
        kept.close()
    return Cost(images, budget.peak, budget.spilled)


def loops(network: Network) -> list[int]:
    """The sites whose input depends on their own output, through another call of them."""
    return [site for stage in plan(network.dataflow) for loop in stage.loops for site in loop]


@dataclass(eq=False)
class _Counted:
    """The inputs, a list a batch, counting images as they go by: further in, a tensor's first axis may be another."""

    batches: Iterable[Any]
    images: int = 0

    def __iter__(self) -> Iterator[list[Any]]:
        for batch in self.batches:
            inputs = list(batch) if isinstance(batch, tuple | list) else [batch]
            self.images += int(inputs[0].shape[0])
            yield inputs
            del batch, inputs
        if not self.images:
            raise ValueError("no image was measured: the calibration set is empty")


@dataclass(frozen=True, eq=False)
class _Work:
    """What is done at one stage."""

    network: Network
    stage: Stage
    epsilons: Sequence[float]
    precise: bool
    combine: Combine

    def advance(self, source: Iterator[list[Any]], kept: Activations) -> list[PopulationMoments]:
        """Run all batches up to the next cut: the moments of the stage's sites on this worker's images."""
        stage = self.stage
        segment = self.network.segment(stage.feeds, stage.keeps, stage.sites, precise=self.precise)
        pools: list[list[PopulationMoments]] = [[] for _ in stage.sites]
        for tensors in source:
            keep, moments = segment(tensors)
            kept.put(keep)
            _pool(pools, moments)
            # while the next batch is read, nothing of this one lies beside it
            del tensors, keep
        return [pool for (pool,) in pools]

    def measure(
        self, sites: Sequence[int], kept: Activations, *, precise: bool
    ) -> Sequence[PopulationMoments]:
        """The moments of these sites from the activations at the cut, which stay."""
        segment = self.network.segment(self.stage.keeps, (), sites, precise=precise)
        pools: list[list[PopulationMoments]] = [[] for _ in sites]
        for tensors in kept:
            _pool(pools, segment(tensors)[1])
            del tensors
        return self.combine([pool for (pool,) in pools])

    def exact(self, moments: Sequence[PopulationMoments], kept: Activations) -> Sequence[PopulationMoments]:
        """Those far from zero measured again in float64."""
        sites = self.stage.sites
        far = [i for i, site in enumerate(sites) if moments[i].far_from_zero(self.epsilons[site])]
        if self.precise or not far:
            return moments
        again = dict(zip(far, self.measure([sites[i] for i in far], kept, precise=True), strict=True))
        return [again.get(i, measured) for i, measured in enumerate(moments)]

    def come_to_rest(self, loop: Sequence[int], kept: Activations, settle: Settle, images: int) -> None:
        """Measure the sites of a loop under their own statistics until these stay."""

        def sweep() -> float:
            moments = self.measure(loop, kept, precise=True)
            return max(settle(site, measured, images) for site, measured in zip(loop, moments, strict=True))

        until_at_rest(sweep)


def until_at_rest(sweep: Callable[[], float]) -> None:
    """Repeat a sweep, which says how far statistics moved by it, until they stay. Raises ValueError if they do not."""
    earlier = float("inf")
    for _ in range(SWEEPS):
        moved = sweep()
        if moved <= SETTLED or earlier <= moved <= ROUNDING:
            return
        earlier = moved
    raise ValueError(
        f"a site that feeds itself did not come to rest in {SWEEPS} sweeps: its statistics still move by "
        f"{moved:.1e} standard deviations; use one_pass"
    )


def of_all_workers(images: int, own: Sequence[PopulationMoments], pooled: Sequence[PopulationMoments]) -> int:
    """How many images all workers measured, from how many one did and what they pooled."""
    if not own:
        return images
    return round(images * pooled[0].count / own[0].count)


def _pool(pools: list[list[PopulationMoments]], moments: Sequence[PopulationMoments]) -> None:
    for pool, part in zip(pools, moments, strict=True):
        pool[:] = [PopulationMoments.pool([*pool, part])]
