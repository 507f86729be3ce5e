"""Measure the running statistics of a network anew and put them in force, weights untouched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import keras

from finetune.batchnorm.layerwise import Combine, of_all_workers
from finetune.batchnorm.live_model import LiveModel
from finetune.batchnorm.measurable import Measurable
from finetune.batchnorm.naming import some
from finetune.batchnorm.passes import Batches
from finetune.batchnorm.sample_order import OrderWatch
from finetune.batchnorm.shift import distance
from finetune.batchnorm.sites import BNSite
from finetune.batchnorm.targets import MeasuredSite, Reference, Targets

Method = Literal["layerwise", "one_pass"]

MEMORY = 2_000_000_000
"""Bytes of activations that `layerwise` keeps between sites, where nothing is said."""


@dataclass(frozen=True)
class Measurement:
    """Running statistics that were measured and put in force.

    images: size of the calibration set. residual: largest distance (finetune.batchnorm.shift.distance)
    between what is stored and a fresh measurement right after; a few float32 roundings when all is well.
    prior: how many images the earlier statistics counted as. kind: "matched" to reference statistics or "plain".
    """

    images: int
    residual: float
    prior: float = 0.0
    method: Method = "layerwise"
    kind: Literal["plain", "matched"] = "plain"


def measure(
    model: keras.Model, sites: Sequence[BNSite], open_batches: Callable[[], Batches], **options: Any
) -> Measurement:
    """Measure the running statistics of those of `sites` that are called; the options are those of `measure_anew`.

    open_batches: opens the calibration images, (batch, height, width, channels).
    Raises ValueError as that does, and where one is a renorm site.
    """
    called = [site for site in sites if site.calls]
    refuse_renorm(called)
    return measure_anew(LiveModel(model, called), open_batches, **options)


def measure_anew(
    network: Measurable,
    open_batches: Callable[[], Batches],
    *,
    method: Method = "layerwise",
    prior: float = 0.0,
    reference: Reference | None = None,
    memory: int = MEMORY,
    precise: bool = False,
    combine: Combine = tuple,
    warn: Callable[[str], None] = lambda words: None,
    watch: Callable[[float], None] = lambda done: None,
) -> Measurement:
    """Measure the running statistics of all sites of the network, and put them in force.

    open_batches: opens the calibration images; it is called twice or more, the last time to check what was stored.
    method: "layerwise" is exact for the finished network (finetune.batchnorm.layerwise); "one_pass" is precise BN.
    prior: N0, the number of images that the earlier statistics count as (Schneider et al. 2020,
        arXiv:2006.16971): the new ones weigh n / (N0 + n). 0 replaces them.
    reference: by site path, the moments of its input on training images under the weights as they are; given,
        what is stored is matched to them (finetune.batchnorm.matching), otherwise it is plain.
    memory: bytes that activations may take under layerwise; what is beyond goes to a temporary file.
    precise: reduce moments in float64 everywhere under layerwise, not only where a mean is far from zero.
    combine: pools the moments of this process with those of others that measure other images of the same set.
    watch: called with the share that is done.
    Raises ValueError, and leaves the statistics as they were, where there is no image, a site that no
    reference is given for, or one that feeds itself and does not come to rest.
    """
    sites = network.sites
    refuse_without_reference(sites, reference)
    targets = Targets(sites, prior, reference)
    with undone_on_error(sites):
        if method == "one_pass":
            images = _in_one_pass(network, targets, open_batches(), combine, warn)
            fresh, _ = network.one_pass(open_batches(), targets.affine)
        else:
            images = network.layerwise(
                open_batches, targets.settle, memory=memory, precise=precise, combine=combine, watch=watch
            )
            fresh, _ = network.input_moments(open_batches())
        apart = targets.residual(combine(fresh), images)
    return Measurement(images, apart, prior, method, "matched" if reference else "plain")


def residual(model: keras.Model, sites: Sequence[BNSite], batches: Batches) -> float:
    """As `residual_of`, of the called ones of these sites."""
    return residual_of(LiveModel(model, [site for site in sites if site.calls]), batches)


def residual_of(network: Measurable, batches: Batches) -> float:
    """How far stored statistics are from the moments of the inputs under the network as it is; changes nothing.

    The largest distance over all sites, in standard deviations: rounding where the statistics are
    layerwise ones of these images, and a measure of how far the images are from those they were measured on.
    """
    moments, _ = network.input_moments(batches)
    return max(
        distance(site.statistics, m.statistics(), site.epsilon)
        for site, m in zip(network.sites, moments, strict=True)
    )


def refuse_renorm(sites: Sequence[BNSite]) -> None:
    """Raise ValueError for sites that cannot be measured, all named."""
    renorm = [site.path for site in sites if getattr(site.layer, "renorm", False)]
    if renorm:
        raise ValueError(
            f"renorm sites keep statistics of another kind and cannot be measured: {some(renorm)}"
        )


def refuse_without_reference(sites: Sequence[MeasuredSite], reference: Reference | None) -> None:
    """Raise ValueError where a reference is given, and not for all of these sites."""
    unknown = [site.path for site in sites if reference is not None and site.path not in reference]
    if unknown:
        raise ValueError(
            f"no reference statistics for {some(unknown)}: measure them on training images first"
        )


@contextmanager
def undone_on_error(sites: Sequence[MeasuredSite]) -> Iterator[None]:
    """Give every site its running statistics back where the block raises."""
    before = [site.statistics for site in sites]
    try:
        yield
    except BaseException:
        for site, statistics in zip(sites, before, strict=True):
            site.store(statistics)
        raise


def _in_one_pass(
    network: Measurable,
    targets: Targets,
    batches: Batches,
    combine: Combine,
    warn: Callable[[str], None],
) -> int:
    watched = OrderWatch(batches)
    moments, images = network.one_pass(watched, targets.affine)
    pooled = combine(moments)
    images = of_all_workers(images, moments, pooled)
    for number, measured in enumerate(pooled):
        targets.settle(number, measured, images)
    for words in watched.warnings():
        warn(words)
    looping = network.self_feeding(watched)
    if looping:
        warn(
            "a site that feeds itself normalises every call with other moments under one_pass, and is off at any "
            f"batch size: {some(looping)}; use method: layerwise"
        )
    return images
