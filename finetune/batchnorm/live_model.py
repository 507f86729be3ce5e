"""A Keras model in memory as something to measure: its graph is cut where the backend has one, else run by run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import keras

from finetune.batchnorm.eager import functions_run_eagerly
from finetune.batchnorm.kept_graphs import KeptPieces, keeps_graphs, kept_or_made
from finetune.batchnorm.layerwise import Combine, Network, Settle, layerwise, loops
from finetune.batchnorm.matching import Affine
from finetune.batchnorm.moments import PopulationMoments
from finetune.batchnorm.population import input_moments, one_pass
from finetune.batchnorm.progressive import progressive
from finetune.batchnorm.sites import BNSite


@dataclass(frozen=True, eq=False)
class LiveModel:
    """A model and those of its sites, all called, that are measured; the others stay as they are."""

    model: keras.Model
    sites: Sequence[BNSite]

    def layerwise(
        self,
        open_batches: Callable[[], Iterable[Any]],
        settle: Settle,
        *,
        memory: int,
        precise: bool,
        combine: Combine,
        watch: Callable[[float], None],
    ) -> int:
        batches = iter(open_batches())
        first = next(batches, None)
        if first is None:
            raise ValueError("no image was measured: the calibration set is empty")
        network = self._cut(first)
        if network is None:
            with functions_run_eagerly():
                return progressive(
                    self.model,
                    self.sites,
                    open_batches,
                    settle,
                    precise=precise,
                    combine=combine,
                    watch=watch,
                )
        return layerwise(
            network,
            chain([first], batches),
            settle,
            memory=memory,
            epsilons=[site.epsilon for site in self.sites],
            precise=precise,
            combine=combine,
            watch=watch,
        ).images

    def one_pass(
        self, batches: Iterable[Any], affine: Mapping[str, Affine]
    ) -> tuple[list[PopulationMoments], int]:
        return one_pass(self.model, self.sites, batches, affine)

    def input_moments(self, batches: Iterable[Any]) -> tuple[list[PopulationMoments], int]:
        return input_moments(self.model, self.sites, batches)

    def self_feeding(self, batches: Iterable[Any]) -> list[str]:
        shared = [site.path for site in self.sites if site.calls > 1]
        network = self._cut(next(iter(batches))) if shared else None
        # where the graph does not show it, every shared site may
        return shared if network is None else [self.sites[number].path for number in loops(network)]

    def _cut(self, images: Any) -> Network | None:
        """The model as a network that can be cut; None where the backend or the model gives none."""
        if keras.backend.backend() != "tensorflow":
            return None
        from finetune.batchnorm.tracing import UncutError, trace

        def cut() -> Network:
            network = trace(self.model, self.sites, images)
            return KeptPieces(network) if keeps_graphs(self.model) else network

        paths = tuple(site.path for site in self.sites)
        try:
            return kept_or_made(self.model, ("cut", paths, tuple(images.shape[1:]), str(images.dtype)), cut)
        except UncutError:
            return None
