"""One measurement of a deployed model: what it predicted and stored before, and what it does now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.batchnorm.layerwise import Combine
from finetune.batchnorm.measure import Measurement, measure_anew
from finetune.batchnorm.moments import PopulationMoments, RunningStatistics
from finetune.batchnorm.moments_file import SavedMoments
from finetune.batchnorm.shift import Shift, shift
from finetune.errors import FinetuneError, ModelError, first_line
from finetune.evaluate import score
from finetune.recalibration.deployed_network import DeployedNetwork
from finetune.recalibration.gate import Evidence, Labelled
from finetune.recalibration.predictions import as_probabilities
from finetune.recalibration.settings import Settings
from finetune.recalibration.subject import ImageSet, Prepared, Subject


@dataclass(frozen=True, eq=False)
class BeforeAfter:
    """stored: by site path, the statistics before. positions: values behind a channel for one image.
    before, after: scores (images, classes), None where the model has none. expected: share of each class, (classes,),
    None where nobody said. confirmed: the statistics were measured once more."""

    subject: Subject
    images: ImageSet
    measurement: Measurement
    stored: Mapping[str, RunningStatistics]
    positions: Mapping[str, int]
    before: NDArray | None
    after: NDArray | None
    expected: NDArray | None
    confirmed: bool = True

    def scores(self, outputs: NDArray | None) -> dict[str, float]:
        """Accuracy and the other metrics of outputs on the images, by name; empty where these have no labels."""
        labels = self.images.labels
        probabilities = None if outputs is None else as_probabilities(outputs)
        if labels is None or probabilities is None:
            return {}
        return dict(score(probabilities, labels[: len(probabilities)], probabilities.shape[1]).metrics)

    @property
    def shifts(self) -> dict[str, Shift]:
        """By site path: how far the statistics moved."""
        return {
            site.path: shift(self.stored[site.path], site.statistics, site.epsilon)
            for site in self.subject.model.sites
        }

    @property
    def evidence(self) -> Evidence:
        """For the gate."""
        labels = self.images.labels
        scored = self.before is not None and self.after is not None and labels is not None
        return Evidence(
            images=self.measurement.images,
            positions=self.positions,
            statistics={site.path: site.statistics for site in self.subject.model.sites},
            residual=self.measurement.residual if self.confirmed else None,
            before=self.before,
            after=self.after,
            prior=self.measurement.prior,
            labels=None if labels is None else labels[: self.measurement.images],
            expected=self.expected,
            labelled=Labelled(self.before, self.after, labels[: len(self.after)]) if scored else None,  # type: ignore[arg-type,index]
        )


def measure_subject(
    subject: Subject,
    images: ImageSet,
    reference: SavedMoments | None,
    settings: Settings,
    warn: Callable[[str], None],
    watch: Callable[[float], None],
    combine: Combine = tuple,
) -> BeforeAfter:
    """Put statistics measured on the images in force, in memory alone. combine: with those of other processes.

    Raises ModelError where that cannot be.
    """
    batches = subject.batches(images, settings.batch_size)
    network, sites = DeployedNetwork(subject.model), subject.model.sites
    stored = {site.path: site.statistics for site in sites}
    try:
        positions = _positions(first_moments(network, batches), sites)
        before = subject.predict(batches)
        measurement = measure_anew(
            network,
            lambda: batches,
            method=settings.method,
            prior=settings.prior,
            reference=reference.moments if reference else None,
            memory=settings.memory,
            combine=combine,
            warn=warn,
            watch=watch,
        )
        after = subject.predict(batches)
    except FinetuneError:
        raise
    # a stranger's graph fails in any of TensorFlow's and onnxruntime's ways, and nothing was written yet
    except Exception as error:
        first = first_line(error)
        raise ModelError(f"{subject.address}: cannot be measured: {first}") from error
    expected = None if settings.class_shares is None else np.array(settings.class_shares)
    # merged shares are statistics of images that are not here
    confirmed = settings.merged is None
    return BeforeAfter(subject, images, measurement, stored, positions, before, after, expected, confirmed)


def first_moments(network: DeployedNetwork, batches: Prepared) -> tuple[list[PopulationMoments], int]:
    """What each site sees of the first batch, and how many images that is. Raises ValueError where there is none."""
    return network.input_moments(batch for batch, _ in zip(batches, range(1), strict=False))


def _positions(measured: tuple[list[PopulationMoments], int], sites: Sequence) -> dict[str, int]:
    moments, images = measured
    return {site.path: round(m.count / images) for site, m in zip(sites, moments, strict=True)}
