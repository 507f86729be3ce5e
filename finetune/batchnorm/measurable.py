"""What can be measured: a network in memory or in a file, whose sites can be run over images and given statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from finetune.batchnorm.layerwise import Combine, Settle
from finetune.batchnorm.matching import Affine
from finetune.batchnorm.moments import PopulationMoments
from finetune.batchnorm.passes import Batches
from finetune.batchnorm.targets import MeasuredSite


class Measurable(Protocol):
    """A network whose sites can be measured: a live model (finetune.batchnorm.live_model), or a file of one."""

    @property
    def sites(self) -> Sequence[MeasuredSite]:
        """Those that are measured, all called."""
        ...

    def layerwise(
        self,
        open_batches: Callable[[], Batches],
        settle: Settle,
        *,
        memory: int,
        precise: bool,
        combine: Combine,
        watch: Callable[[float], None],
    ) -> int:
        """Settle every site under the definition of finetune.batchnorm.layerwise; how many images there were."""
        ...

    def one_pass(self, batches: Batches, affine: Mapping[str, Affine]) -> tuple[list[PopulationMoments], int]:
        """As finetune.batchnorm.population.one_pass."""
        ...

    def input_moments(self, batches: Batches) -> tuple[list[PopulationMoments], int]:
        """As finetune.batchnorm.population.input_moments."""
        ...

    def self_feeding(self, batches: Batches) -> list[str]:
        """Paths of the sites whose input depends on their own output; one batch of these is looked at."""
        ...
