"""Exact statistics of a live model: by cutting its graph where the backend has one, otherwise run by run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import keras

from finetune.batchnorm.eager import functions_run_eagerly
from finetune.batchnorm.layerwise import Combine, Settle, layerwise
from finetune.batchnorm.naming import some
from finetune.batchnorm.plan import plan
from finetune.batchnorm.progressive import progressive
from finetune.batchnorm.sites import BNSite

if TYPE_CHECKING:
    from finetune.batchnorm.tf_network import TFNetwork


def measure_exactly(
    model: keras.Model,
    sites: Sequence[BNSite],
    open_batches: Callable[[], Iterable[Any]],
    settle: Settle,
    *,
    memory: int,
    precise: bool,
    combine: Combine,
    watch: Callable[[float], None],
) -> int:
    """Settle every site under the definition of finetune.batchnorm.layerwise; how many images there were."""
    batches = iter(open_batches())
    first = next(batches, None)
    if first is None:
        raise ValueError("no image was measured: the calibration set is empty")
    network = _cut(model, sites, first)
    if network is None:
        with functions_run_eagerly():
            return progressive(
                model, sites, open_batches, settle, precise=precise, combine=combine, watch=watch
            )
    return layerwise(
        network,
        chain([first], batches),
        settle,
        memory=memory,
        epsilons=[site.epsilon for site in sites],
        precise=precise,
        combine=combine,
        watch=watch,
    ).images


def self_feeding(model: keras.Model, sites: Sequence[BNSite], batches: Iterable[Any]) -> list[str]:
    """What to say where a site's input depends on its own output, through another call of it: nothing otherwise."""
    shared = [site.path for site in sites if site.calls > 1]
    network = _cut(model, sites, next(iter(batches))) if shared else None
    if network is not None:
        loops = [loop for stage in plan(network.dataflow) for loop in stage.loops]
        shared = [sites[number].path for loop in loops for number in loop]
    if not shared:
        return []
    return [
        f"a site that feeds itself normalises every call with other moments under one_pass, and is off at any "
        f"batch size: {some(shared)}; use method: layerwise"
    ]


def _cut(model: keras.Model, sites: Sequence[BNSite], images: Any) -> TFNetwork | None:
    """The model as a network that can be cut; None where the backend or the model gives none."""
    if keras.backend.backend() != "tensorflow":
        return None
    from finetune.batchnorm.tracing import UncutError, trace

    try:
        return trace(model, sites, images)
    except UncutError:
        return None
