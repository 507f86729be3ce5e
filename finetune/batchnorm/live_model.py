"""A Keras model in memory as something to measure: by its graph where the backend has one, else as it is called."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from finetune.batchnorm.eager import functions_run_eagerly
from finetune.batchnorm.kept_graphs import KeptPieces, keeps_graphs, kept_or_made
from finetune.batchnorm.layerwise import Combine, Network, Settle, layerwise, loops
from finetune.batchnorm.matching import Affine, with_affine
from finetune.batchnorm.moments import Float64, PopulationMoments
from finetune.batchnorm.passes import Batches, Measured, Run, exact, pooled
from finetune.batchnorm.progressive import progressive
from finetune.batchnorm.site_calls import as_it_is, run_called, with_batch
from finetune.batchnorm.sites import BNSite

if TYPE_CHECKING:
    from finetune.batchnorm.tracing import Traced


@dataclass(frozen=True, eq=False)
class LiveModel:
    """A model and those of its sites, all called, that are measured; the others stay as they are.

    Its graph is kept as long as this is: weights and statistics may change meanwhile, and nothing else.
    """

    model: keras.Model
    sites: Sequence[BNSite]
    _graphs: dict[Any, Traced | None] = field(init=False, default_factory=dict)

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
        traced = self.graph(first)
        if traced is None:
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
            traced.network,
            chain([first], batches),
            settle,
            memory=memory,
            epsilons=[site.epsilon for site in self.sites],
            precise=precise,
            combine=combine,
            watch=watch,
        ).images

    def one_pass(self, batches: Batches, affine: Mapping[str, Affine]) -> Measured:
        parameters = [_gamma_and_beta(site, affine.get(site.path)) for site in self.sites]

        def open_run(images: Any, precise: Collection[int]) -> Run:
            traced = self.graph(images)
            if traced is None:
                return run_called(self.model, self.sites, with_batch(self.sites, parameters), precise)
            network = traced.in_batch_mode
            run = network.run([parameters[call.site] for call in network.calls], precise, [images])
            return lambda batch: run([batch])

        return self._measured(batches, open_run)

    def input_moments(self, batches: Batches) -> Measured:
        def open_run(images: Any, precise: Collection[int]) -> Run:
            traced = self.graph(images)
            if traced is None:
                return run_called(self.model, self.sites, as_it_is, precise)
            return _as_it_is(traced.network, [site.channels for site in self.sites], precise)

        return self._measured(batches, open_run)

    def _measured(self, batches: Batches, open_run: Callable[[Any, Collection[int]], Run]) -> Measured:
        def once(precise: Collection[int]) -> Measured:
            return pooled(batches, lambda first: open_run(first, precise), lambda batch: int(batch.shape[0]))

        return exact(once, batches, [site.epsilon for site in self.sites])

    def self_feeding(self, batches: Iterable[Any]) -> list[str]:
        shared = [site.path for site in self.sites if site.calls > 1]
        traced = self.graph(next(iter(batches))) if shared else None
        # where the graph does not show it, every shared site may
        return shared if traced is None else [self.sites[number].path for number in loops(traced.network)]

    def graph(self, images: Any) -> Traced | None:
        """The model's graph for images like these, a batch or its shape and dtype; None where the backend or the model
        gives none: a site is called inside a function or a loop of its own."""
        if keras.backend.backend() != "tensorflow":
            return None
        key = tuple(images.shape[1:]), keras.backend.standardize_dtype(images.dtype)
        if key not in self._graphs:
            paths = tuple(site.path for site in self.sites)
            self._graphs[key] = kept_or_made(self.model, ("traced", paths, *key), lambda: self._trace(images))
        return self._graphs[key]

    def _trace(self, images: Any) -> Traced | None:
        from finetune.batchnorm.tracing import UncutError, trace

        try:
            traced = trace(self.model, self.sites, images)
        except UncutError:
            return None
        return replace(traced, network=KeptPieces(traced.network)) if keeps_graphs(self.model) else traced


def _as_it_is(network: Network, channels: Sequence[int], precise: Collection[int]) -> Run:
    """Measuring all sites or, where some are measured in float64, these alone. channels: per site."""
    asked = sorted(precise) or list(range(len(channels)))
    segment = network.segment(network.dataflow.inputs, (), asked, precise=bool(precise))
    nothing = [PopulationMoments(0.0, np.zeros(number), np.zeros(number)) for number in channels]

    def run(batch: Any) -> list[PopulationMoments]:
        found = dict(zip(asked, segment([batch])[1], strict=True))
        return [found.get(number, none) for number, none in enumerate(nothing)]

    return run


def _gamma_and_beta(site: BNSite, affine: Affine | None) -> tuple[Float64, Float64]:
    """(channels,) each, as the site applies them, over what else is done to the normalised values."""
    absent = np.ones(site.channels), np.zeros(site.channels)
    gamma, beta = (
        otherwise if variable is None else keras.ops.convert_to_numpy(variable).astype(np.float64)
        for variable, otherwise in zip((site.layer.gamma, site.layer.beta), absent, strict=True)
    )
    return with_affine(gamma, beta, affine)
