"""What a policy promised, checked after the fact on the live model.

Freezing in Keras fails silently in several ways (a baked `training=False` that `fit` overrides,
keras#20285; a flag changed after compile; sites that a walk over `model.layers` misses), so nothing
here looks at flags: only at what the numbers did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune.batchnorm.kept import affine_kept, statistics_kept
from finetune.batchnorm.naming import named
from finetune.batchnorm.promise import Promise
from finetune.batchnorm.replicas_agree import replicas_agree
from finetune.batchnorm.sites import BNSite
from finetune.batchnorm.timeline import Reading, Timeline
from finetune.result import Check

RESIDUAL_TOLERANCE = 1e-3
"""In standard deviations: far above float32 rounding, far below what a wrong site would show."""

BATCH_MATE_TOLERANCE = {"float32": 1e-3, "mixed_float16": 3e-2, "mixed_bfloat16": 1e-1}
"""In probability, by precision: other kernels for other batch sizes round differently."""


def check(
    promises: Mapping[str, Promise],
    timeline: Timeline,
    sites: Sequence[BNSite],
    model: keras.Model,
    images: Any,
    predict: Callable[[Any], Any] | None = None,
) -> tuple[Check, ...]:
    """Every check there is for what was promised, by site path; `images` is a batch of at least two model inputs.

    predict: what the model in service makes of a batch, where there is a faster way than to call it.
    """
    return (
        all_reached(sites),
        *statistics_kept(promises, timeline),
        *affine_kept(promises, timeline),
        *replicas_agree(timeline),
        *measurements_exact(timeline),
        finite(timeline.finished),
        independent_of_batch_mates(model, images, predict),
    )


def all_reached(sites: Sequence[BNSite]) -> Check:
    """Every site that holds statistics is reached by a forward pass, so that none was overlooked or is dead weight."""
    built = [site for site in sites if site.built]
    missed = [site.path for site in built if not site.calls]
    unbuilt = len(sites) - len(built)
    aside = f"; {unbuilt} more layers are never called and hold no statistics" if unbuilt else ""
    detail = f"{len(built)} sites found, {len(built) - len(missed)} reached{aside}"
    return Check("every site is reached", not missed, detail + named(missed))


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
    return Check("no NaN, no negative variance", not broken, f"{len(readings)} sites read" + named(broken))


def _sound(reading: Reading) -> bool:
    values = (reading.statistics.mean, reading.statistics.variance, *reading.affine)
    return all(np.isfinite(v).all() for v in values) and bool((reading.statistics.variance >= 0).all())


def independent_of_batch_mates(
    model: keras.Model, images: Any, predict: Callable[[Any], Any] | None = None
) -> Check:
    """The prediction for one image is the same alone and in company: no batch statistics in service."""
    predict = predict or partial(model, training=False)
    alone = ops.convert_to_numpy(predict(images[:1]))
    together = ops.convert_to_numpy(predict(images))[:1]
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
