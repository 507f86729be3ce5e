"""Exact running statistics without cutting the network: one run over the images for every site.

For backends and models whose graph cannot be cut at the sites. The definition is that of
finetune.batchnorm.layerwise; the cost is half a forward pass a site, since each run stops at the site it measures.
Sites between two calls of a shared site may depend on it and it on them: they are measured in turns until they stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops
from keras.layers import BatchNormalization

from finetune.batchnorm.batch_moments import Moments, batch_moments
from finetune.batchnorm.layerwise import Combine, Settle, of_all_workers, until_at_rest
from finetune.batchnorm.moments import PopulationMoments
from finetune.batchnorm.sites import BNSite, SiteCall, replaced_calls


def progressive(
    model: keras.Model,
    sites: Sequence[BNSite],
    open_batches: Callable[[], Iterable[Any]],
    settle: Settle,
    *,
    precise: bool = False,
    combine: Combine = tuple,
    watch: Callable[[float], None] = lambda done: None,
) -> int:
    """Measure the sites, all called, in call order, settle each, and say how many images there were.

    Raises ValueError where there is no image and where a site that feeds itself does not come to rest.
    """
    done, images = 0, 0
    for window in _windows(_call_order(model, sites, open_batches)):
        members = [
            _Member(model, sites[number], number, window.count(number), open_batches)
            for number in set(window)
        ]
        if len(window) == 1:
            images = members[0].measure(settle, combine, precise=precise)[0]
        else:
            members.sort(key=lambda member: window.index(member.number))
            images = _in_turns(members, settle, combine)
        done += len(members)
        watch(done / len(sites))
    return images


def _in_turns(members: Sequence[_Member], settle: Settle, combine: Combine) -> int:
    """Measure these sites one after the other, again and again, until they stay."""
    seen: list[int] = []

    def sweep() -> float:
        outcomes = [member.measure(settle, combine, precise=True) for member in members]
        seen[:] = [outcomes[0][0]]
        return max(moved for _, moved in outcomes)

    until_at_rest(sweep)
    return seen[0]


class _Reached(BaseException):
    """All calls of the measured site were seen; no `except Exception` on the way up must take it."""


def _call_order(
    model: keras.Model, sites: Sequence[BNSite], open_batches: Callable[[], Iterable[Any]]
) -> list[int]:
    """The site of every call in the order of one forward pass."""
    place = {id(site.layer): number for number, site in enumerate(sites)}
    order: list[int] = []

    def noting(layer: BatchNormalization, original: SiteCall) -> SiteCall:
        def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
            order.append(place[id(layer)])
            return original(inputs, training=False, mask=mask)

        return call

    first = next(iter(open_batches()), None)
    if first is None:
        raise ValueError("no image was measured: the calibration set is empty")
    with replaced_calls([site.layer for site in sites], noting):
        model(first[:1], training=False)
    return order


def _windows(order: Sequence[int]) -> Iterator[list[int]]:
    """Stretches of calls, every site inside of one: single calls, and first to last call of what is shared."""
    last = {site: place for place, site in enumerate(order)}
    begin, end = 0, 0
    for place, site in enumerate(order):
        end = max(end, last[site])
        if place == end:
            yield list(order[begin : place + 1])
            begin = place + 1


@dataclass(frozen=True, eq=False)
class _Member:
    """One site, its number, how often a forward pass calls it, and the images."""

    model: keras.Model
    site: BNSite
    number: int
    calls: int
    open_batches: Callable[[], Iterable[Any]]

    def measure(self, settle: Settle, combine: Combine, *, precise: bool) -> tuple[int, float]:
        """Measure and settle it: on how many images, and how far it moved."""
        own, images = self._moments(precise=precise)
        if not precise and own.far_from_zero(self.site.epsilon):
            own, images = self._moments(precise=True)
        (pooled,) = combine([own])
        images = of_all_workers(images, [own], [pooled])
        return images, settle(self.number, pooled, images)

    def _moments(self, *, precise: bool) -> tuple[PopulationMoments, int]:
        seen: list[Moments] = []

        def watched(layer: BatchNormalization, original: SiteCall) -> SiteCall:
            def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
                seen.append(batch_moments(inputs, mask, layer.axis, precise=precise))
                if len(seen) == self.calls:
                    raise _Reached
                return original(inputs, training=False, mask=mask)

            return call

        parts: list[PopulationMoments] = []
        images = 0
        with replaced_calls([self.site.layer], watched):
            for batch in self.open_batches():
                images += int(batch.shape[0])
                seen.clear()
                with suppress(_Reached):
                    self.model(batch, training=False)
                parts += [PopulationMoments.of_batch(*map(ops.convert_to_numpy, moments)) for moments in seen]
        return PopulationMoments.pool(parts), images
