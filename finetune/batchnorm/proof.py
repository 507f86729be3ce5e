"""What a policy promised, checked after the fact on the live model.

Freezing in Keras fails silently in several ways (a baked `training=False` that `fit` overrides,
keras#20285; a flag changed after compile; sites that a walk over `model.layers` misses), so nothing
here looks at flags: only at what the numbers did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from finetune.batchnorm.moments import RunningStatistics
from finetune.batchnorm.population import Measurement
from finetune.batchnorm.promise import Promise
from finetune.batchnorm.sites import BNSite
from finetune.result import Check

RESIDUAL_TOLERANCE = 1e-3
"""In standard deviations: far above float32 rounding, far below what a wrong site would show."""

BATCH_MATE_TOLERANCE = {"float32": 1e-3, "mixed_float16": 3e-2, "mixed_bfloat16": 1e-1}
"""In probability, by precision: other kernels for other batch sizes round differently."""


@dataclass(frozen=True, eq=False)
class Reading:
    """All that one site holds at one moment."""

    path: str
    statistics: RunningStatistics
    affine: tuple[NDArray[np.floating], ...]


@dataclass(frozen=True, eq=False)
class Timeline:
    """The readings of all built sites at the turning points of a run, in the same order.

    pretrained: as loaded. started: after the policy's start, before the first stage. trained: after the
    last stage. finished: after the policy's finish. start and finish are the measurements made there;
    `finish` is None as well where the measurement was not kept.
    trained_sites: paths of the sites inside what any stage trained.
    """

    pretrained: Sequence[Reading]
    started: Sequence[Reading]
    trained: Sequence[Reading]
    finished: Sequence[Reading]
    start: Measurement | None
    finish: Measurement | None
    trained_sites: frozenset[str]


def read(sites: Sequence[BNSite]) -> tuple[Reading, ...]:
    """What every built site holds now."""
    return tuple(Reading(site.path, site.statistics, site.affine) for site in sites if site.built)


def check(
    promise: Promise, timeline: Timeline, sites: Sequence[BNSite], model: keras.Model, images: Any
) -> tuple[Check, ...]:
    """Every check there is for this promise; `images` is one batch of at least two model inputs."""
    return (
        all_reached(sites),
        *statistics_kept(promise, timeline),
        *affine_kept(promise, timeline),
        *measurements_exact(timeline),
        finite(timeline.finished),
        independent_of_batch_mates(model, images),
    )


def all_reached(sites: Sequence[BNSite]) -> Check:
    """Every site that holds statistics is reached by a forward pass, so that none was overlooked or is dead weight."""
    built = [site for site in sites if site.built]
    missed = [site.path for site in built if not site.calls]
    unbuilt = len(sites) - len(built)
    aside = f"; {unbuilt} more layers are never called and hold no statistics" if unbuilt else ""
    detail = f"{len(built)} sites found, {len(built) - len(missed)} reached{aside}"
    return Check("every site is reached", not missed, detail + _named(missed))


def statistics_kept(promise: Promise, timeline: Timeline) -> tuple[Check, ...]:
    """Whether the running statistics stayed or moved as the policy says."""
    if promise.statistics == "fixed":
        moved = _moved(timeline.pretrained, timeline.finished)
        return (
            _identical("running statistics are fixed", moved, len(timeline.finished), "the pretrained ones"),
        )
    if promise.statistics == "measured":
        moved = _moved(timeline.started, timeline.finished)
        return (
            _identical("running statistics are fixed", moved, len(timeline.finished), "the measured ones"),
        )
    outside = len(timeline.trained) - len(timeline.trained_sites)
    return (_followed(timeline), *([_outside_kept(timeline)] if outside else []))


def _followed(timeline: Timeline) -> Check:
    """A model whose `call` takes no `training` argument trains in inference mode: nothing follows then."""
    moved = set(_moved(timeline.started, timeline.trained))
    stuck = [path for path in timeline.trained_sites if path not in moved]
    detail = (
        f"{len(timeline.trained_sites) - len(stuck)} of {len(timeline.trained_sites)} trained sites moved"
    )
    return Check("running statistics follow", not stuck, detail + _named(stuck))


def _outside_kept(timeline: Timeline) -> Check:
    """Sites outside of what the stages trained keep their statistics until the finish."""
    moved = [p for p in _moved(timeline.started, timeline.trained) if p not in timeline.trained_sites]
    outside = len(timeline.trained) - len(timeline.trained_sites)
    return _identical("statistics of untrained sites are fixed", moved, outside, "those before training")


def affine_kept(promise: Promise, timeline: Timeline) -> tuple[Check, ...]:
    """gamma and beta: bit-identical where they are fixed; where they train, outside of the trained sites, if any."""
    changed = [
        before.path
        for before, after in zip(timeline.pretrained, timeline.finished, strict=True)
        if any(a.tobytes() != b.tobytes() for a, b in zip(before.affine, after.affine, strict=True))
    ]
    if promise.affine == "fixed":
        return (
            _identical("gamma and beta are fixed", changed, len(timeline.finished), "the pretrained ones"),
        )
    count = len(timeline.finished) - len(timeline.trained_sites)
    outside = [path for path in changed if path not in timeline.trained_sites]
    if not count:
        return ()
    return (_identical("gamma and beta of untrained sites are fixed", outside, count, "the pretrained ones"),)


def measurements_exact(timeline: Timeline) -> tuple[Check, ...]:
    """Each measurement, compared with a fresh one at the moment it was made."""
    made = (("before training", timeline.start), ("after training", timeline.finish))
    return tuple(
        Check(
            f"measured statistics ({when}) equal a fresh measurement",
            bool(m.residual <= RESIDUAL_TOLERANCE),
            f"largest distance {m.residual:.1e} sd over {m.images} images (at most {RESIDUAL_TOLERANCE:g})",
        )
        for when, m in made
        if m is not None
    )


def finite(readings: Sequence[Reading]) -> Check:
    """No NaN or infinity anywhere, no negative variance."""
    broken = [r.path for r in readings if not _sound(r)]
    return Check("no NaN, no negative variance", not broken, f"{len(readings)} sites read" + _named(broken))


def _sound(reading: Reading) -> bool:
    values = (reading.statistics.mean, reading.statistics.variance, *reading.affine)
    return all(np.isfinite(v).all() for v in values) and bool((reading.statistics.variance >= 0).all())


def independent_of_batch_mates(model: keras.Model, images: Any) -> Check:
    """The prediction for one image is the same alone and in company: no batch statistics in service."""
    alone = ops.convert_to_numpy(model(images[:1], training=False))
    together = ops.convert_to_numpy(model(images, training=False))[:1]
    apart = float(np.max(np.abs(alone.astype(np.float64) - together)))
    tolerance = BATCH_MATE_TOLERANCE[_precision(model)]
    detail = f"largest difference {apart:.1e} in a batch of {images.shape[0]} (at most {tolerance:g})"
    return Check("a prediction does not depend on its batch-mates", bool(apart <= tolerance), detail)


def _precision(model: keras.Model) -> str:
    """The lowest precision that any layer computes in."""
    used = {layer.compute_dtype for layer in model._flatten_layers()}
    for dtype in ("bfloat16", "float16"):
        if dtype in used:
            return f"mixed_{dtype}"
    return "float32"


def _moved(before: Sequence[Reading], after: Sequence[Reading]) -> list[str]:
    return [
        earlier.path
        for earlier, later in zip(before, after, strict=True)
        if not earlier.statistics.identical(later.statistics)
    ]


def _identical(name: str, moved: Sequence[str], count: int, reference: str) -> Check:
    if not moved:
        return Check(name, True, f"{count} of {count} sites bit-identical to {reference}")
    return Check(
        name, False, f"NOT frozen: {len(moved)} of {count} sites differ from {reference}" + _named(moved)
    )


def _named(paths: Sequence[str]) -> str:
    if not paths:
        return ""
    shown = ", ".join(sorted(paths)[:3])
    return f": {shown}" + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
