"""An opened file with one image input, as something to measure (finetune.batchnorm.measurable)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from finetune.batchnorm.layerwise import Combine, Settle, layerwise, loops
from finetune.batchnorm.matching import Affine
from finetune.batchnorm.moments import PopulationMoments
from finetune.formats.deployed import Batch, DeployedModel, DeployedSite


@dataclass(frozen=True, eq=False)
class DeployedNetwork:
    """Batches are arrays as the model reads them."""

    model: DeployedModel

    @property
    def sites(self) -> Sequence[DeployedSite]:
        return self.model.sites

    def layerwise(
        self,
        open_batches: Callable[[], Iterable[NDArray]],
        settle: Settle,
        *,
        memory: int,
        precise: bool,
        combine: Combine,
        watch: Callable[[float], None],
    ) -> int:
        return layerwise(
            self.model.network(),
            open_batches(),
            settle,
            memory=memory,
            epsilons=[site.epsilon for site in self.sites],
            precise=precise,
            combine=combine,
            watch=watch,
        ).images

    def one_pass(
        self, batches: Iterable[NDArray], affine: Mapping[str, Affine]
    ) -> tuple[list[PopulationMoments], int]:
        return self.model.one_pass(_Named(self.model.inputs[0].name, batches), affine)

    def input_moments(self, batches: Iterable[NDArray]) -> tuple[list[PopulationMoments], int]:
        """Raises ValueError where there is no image."""
        network, everywhere = self.model.network(), range(len(self.sites))
        feeds = network.dataflow.inputs
        segments: dict[bool, Any] = {}
        pools: list[list[PopulationMoments]] = [[] for _ in everywhere]
        images = 0
        for batch in batches:
            images += len(batch)
            measured = self._measured(network, feeds, segments, batch)
            for pool, part in zip(pools, measured, strict=True):
                pool[:] = [PopulationMoments.pool([*pool, part])]
        if not images:
            raise ValueError("no image was measured: the calibration set is empty")
        return [pooled for (pooled,) in pools], images

    def _measured(
        self, network: Any, feeds: Sequence[str], segments: dict[bool, Any], batch: NDArray
    ) -> list[PopulationMoments]:
        """The moments of one batch, in float64 from the batch on in which a mean is far from zero."""
        precise = True in segments
        if precise not in segments:
            segments[precise] = network.segment(feeds, (), range(len(self.sites)), precise=precise)
        moments: list[PopulationMoments] = segments[precise]([batch])[1]
        far = any(m.far_from_zero(site.epsilon) for m, site in zip(moments, self.sites, strict=True))
        if far and not precise:
            segments[True] = network.segment(feeds, (), range(len(self.sites)), precise=True)
            moments = segments[True]([batch])[1]
        return moments

    def self_feeding(self, batches: Iterable[NDArray]) -> list[str]:
        if all(site.calls == 1 for site in self.sites):
            return []
        return [self.sites[number].path for number in loops(self.model.network())]


@dataclass(frozen=True, eq=False)
class _Named:
    """Each batch under the name of the input, as often as the batches can be read."""

    name: str
    batches: Iterable[NDArray]

    def __iter__(self) -> Iterator[Batch]:
        return ({self.name: batch} for batch in self.batches)
