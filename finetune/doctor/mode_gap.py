"""Which part of a gap in accuracy is BN: the same labelled images under running, batch and fresh statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops
from keras.layers import BatchNormalization
from numpy.typing import NDArray

from finetune.batchnorm.batch_moments import batch_moments
from finetune.batchnorm.eager import functions_run_eagerly
from finetune.batchnorm.measurable import Measurable
from finetune.batchnorm.measure import measure_anew, undone_on_error
from finetune.batchnorm.sites import BNSite, SiteCall, replaced_calls
from finetune.batchnorm.targets import Reference
from finetune.doctor.company import Predict
from finetune.doctor.finding import Finding

WORTH_IT = 0.02
"""Points of accuracy / 100 below which a gap is left alone."""

SERIOUS = 0.1


@dataclass(frozen=True)
class ModeGap:
    """Shares of `images` that are right. fresh: statistics measured on these very images, matched where there is a
    reference. batch: every batch normalised with its own moments; None where a file cannot do that. error: one
    standard error of the difference between running and fresh, of paired answers."""

    images: int
    running: float
    batch: float | None
    fresh: float
    error: float

    @property
    def gain(self) -> float:
        return self.fresh - self.running


def mode_gap(
    network: Measurable,
    live: Sequence[BNSite] | None,
    predict: Predict,
    batches: Sequence[NDArray],
    labels: NDArray,
    reference: Reference | None,
) -> ModeGap:
    """live: the called sites of a Keras model, which can normalise with the batch. Every statistic is given back."""
    running = _right(predict, batches, labels)
    batch = None
    if live is not None:
        with in_batch_mode(live):
            batch = float(_right(predict, batches, labels).mean())
    with given_back(network):
        measure_anew(network, lambda: batches, reference=reference)
        fresh = _right(predict, batches, labels)
    difference = fresh.astype(float) - running
    error = float(difference.std(ddof=1) / np.sqrt(len(labels))) if len(labels) > 1 else np.inf
    return ModeGap(len(labels), float(running.mean()), batch, float(fresh.mean()), error)


def _right(predict: Predict, batches: Sequence[NDArray], labels: NDArray) -> NDArray[np.bool_]:
    scores = np.concatenate([predict(batch) for batch in batches])
    right: NDArray[np.bool_] = scores.argmax(axis=1) == labels
    return right


@contextmanager
def given_back(network: Measurable) -> Iterator[None]:
    """The statistics that were in force before the block."""
    before = [site.statistics for site in network.sites]
    try:
        with undone_on_error(network.sites):
            yield
    finally:
        for site, statistics in zip(network.sites, before, strict=True):
            site.store(statistics)


@contextmanager
def in_batch_mode(sites: Sequence[BNSite]) -> Iterator[None]:
    """Inside, every call of these sites normalises with its own batch, whatever `training` says; nothing is kept."""

    def normalising(layer: BatchNormalization, original: SiteCall) -> SiteCall:
        def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
            _, mean, variance = batch_moments(inputs, mask, layer.axis)
            outputs = ops.batch_normalization(
                ops.cast(inputs, mean.dtype),
                mean,
                variance,
                layer.axis,
                layer.beta,
                layer.gamma,
                layer.epsilon,
            )
            return ops.cast(outputs, layer.compute_dtype)

        return call

    with replaced_calls([site.layer for site in sites], normalising), functions_run_eagerly():
        yield


def gap_found(gap: ModeGap, address: str, matched: bool) -> Iterator[Finding]:
    """matched: there was a reference to match the fresh statistics to."""
    with_batch = "" if gap.batch is None else f", {gap.batch:.3f} with those of each batch"
    measured = (
        f"accuracy {gap.running:.3f} with the stored statistics{with_batch}, {gap.fresh:.3f} with fresh ones "
        f"({gap.images} images, difference {gap.gain:+.3f} ± {1.96 * gap.error:.3f})"
    )
    if gap.gain > max(WORTH_IT, 1.96 * gap.error):
        yield Finding(
            "mode-gap",
            "serious" if gap.gain > SERIOUS else "warning",
            measured,
            "this part of what is lost is the statistics alone; the weights are fine",
            f"finetune recalibrate {address} --images DIR --labelled",
        )
    elif -gap.gain > max(WORTH_IT, 1.96 * gap.error):
        yield Finding(
            "mode-gap",
            "note",
            measured,
            "statistics measured anew make it worse: it was trained under those that it stores",
            "keep them"
            if matched
            else f"finetune recalibrate {address} --images DIR --reference-images TRAIN_DIR    # matched, never plain",
        )
