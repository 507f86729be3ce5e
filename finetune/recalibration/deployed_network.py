"""An opened file with one image input, as something to measure (finetune.batchnorm.measurable)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from finetune.batchnorm.layerwise import Combine, Settle, layerwise, loops
from finetune.batchnorm.matching import Affine
from finetune.batchnorm.moments import PopulationMoments
from finetune.batchnorm.passes import Measured, pooled
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

    def one_pass(self, batches: Iterable[NDArray], affine: Mapping[str, Affine]) -> Measured:
        return self.model.one_pass(_Named(self.model.inputs[0].name, batches), affine)

    def input_moments(self, batches: Iterable[NDArray]) -> Measured:
        """Raises ValueError where there is no image."""
        network, segments = self.model.network(), dict[bool, Any]()

        def run(batch: NDArray) -> list[PopulationMoments]:
            return self._measured(network, segments, batch)

        return pooled(batches, lambda first: run, len)

    def _measured(self, network: Any, segments: dict[bool, Any], batch: NDArray) -> list[PopulationMoments]:
        """The moments of one batch, in float64 from the batch on in which a mean is far from zero."""
        feeds, precise = network.dataflow.inputs, True in segments
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
