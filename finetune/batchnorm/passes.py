"""One pass over a calibration set: the moments of each batch pooled, and far from zero all of it in float64."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from finetune.batchnorm.moments import PopulationMoments

Batches = Iterable[Any]

Run = Callable[[Any], Sequence[PopulationMoments]]
"""One batch -> per site the moments of its inputs, its calls pooled."""

Measured = tuple[list[PopulationMoments], int]
"""Per site the moments over all batches, and the number of images."""


def pooled(batches: Iterable[Any], open_run: Callable[[Any], Run], size: Callable[[Any], int]) -> Measured:
    """Once over the batches. open_run: called with the first. size: how many images there are in one.

    Raises ValueError where there is no image.
    """
    run: Run | None = None
    total: list[PopulationMoments] = []
    images = 0
    for batch in batches:
        run = run or open_run(batch)
        images += size(batch)
        fresh = run(batch)
        total = [a.merge(b) for a, b in zip(total, fresh, strict=True)] if total else list(fresh)
    if not images:
        raise ValueError("no image was measured: the calibration set is empty")
    return total, images


def exact(
    once: Callable[[Collection[int]], Measured], batches: Iterable[Any], epsilons: Sequence[float]
) -> Measured:
    """What `once` measures, and again what float32 does not resolve.

    once: given the numbers of the sites whose moments are reduced in float64; where there are such, the others may be
    left out. epsilons: per site. Raises ValueError where batches that are needed twice can be read only once.
    """
    measured, images = once(())
    far = [n for n, epsilon in enumerate(epsilons) if measured[n].far_from_zero(epsilon)]
    if not far:
        return measured, images
    if iter(batches) is batches:
        raise ValueError("a site far from zero is measured twice: give batches that can be iterated again")
    again, _ = once(far)
    return [again[n] if n in far else moments for n, moments in enumerate(measured)], images
