"""What each site stores once its input is measured, and how far what is stored is from that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from finetune.batchnorm.matching import Affine, matched, matched_affine, with_prior
from finetune.batchnorm.moments import PopulationMoments, RunningStatistics
from finetune.batchnorm.shift import distance

Reference = Mapping[str, PopulationMoments]
"""By site path: the moments of the site's input on training images."""


class MeasuredSite(Protocol):
    """A site of a live model or of a file."""

    @property
    def path(self) -> str: ...

    @property
    def epsilon(self) -> float: ...

    @property
    def calls(self) -> int: ...

    @property
    def statistics(self) -> RunningStatistics: ...

    def store(self, values: RunningStatistics) -> None: ...


class Targets:
    """What each site is to store once its input is measured."""

    def __init__(self, sites: Sequence[MeasuredSite], prior: float, reference: Reference | None) -> None:
        self.sites, self.prior, self.reference = sites, prior, reference
        self.stored = [site.statistics for site in sites]
        self.images = 0

    def of(self, site: int, measured: RunningStatistics, images: int) -> RunningStatistics:
        stored, epsilon = self.stored[site], self.sites[site].epsilon
        if self.reference:
            reference = self.reference[self.sites[site].path].statistics()
            measured = matched(stored, reference, measured, epsilon)
        return with_prior(stored, measured, self.prior, images)

    @property
    def affine(self) -> dict[str, Affine]:
        """By site path: what a matched site does to values that were normalised with their own moments."""
        reference = self.reference or {}
        return {
            site.path: matched_affine(stored, reference[site.path].statistics(), site.epsilon)
            for site, stored in zip(self.sites, self.stored, strict=True)
            if site.path in reference
        }

    def settle(self, site: int, measured: PopulationMoments, images: int) -> float:
        """Put a measured site in force; how far its statistics moved by it."""
        before, target = self.sites[site].statistics, self.of(site, measured.statistics(), images)
        self.sites[site].store(target)
        return distance(before, target, self.sites[site].epsilon)

    def residual(self, fresh: Sequence[PopulationMoments], images: int) -> float:
        """The largest distance between what is stored and what a fresh measurement asks for."""
        return max(
            distance(site.statistics, self.of(number, moments.statistics(), images), site.epsilon)
            for number, (site, moments) in enumerate(zip(self.sites, fresh, strict=True))
        )
