"""How policies measure running statistics: the one place where they call the estimator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from finetune.errors import InputError
from finetune.policies.base import Images, Warn

if TYPE_CHECKING:
    import keras

    from finetune.batchnorm.measure import Measurement
    from finetune.batchnorm.sites import BNSite

Method = Literal["layerwise", "one_pass"]

MEMORY = 2_000_000_000
"""Bytes of activations that are kept between sites, where a policy does not say."""


def measured(
    model: keras.Model,
    sites: Sequence[BNSite],
    calibration: Images,
    warn: Warn,
    *,
    method: Method,
    samples: int,
    prior: float = 0.0,
    memory: int = MEMORY,
) -> Measurement | None:
    """Measure the running statistics of `sites` on `samples` calibration images at most and put them in force.

    None where the network calls none of them. Raises InputError where a site cannot be measured.
    """
    if not any(site.calls for site in sites):
        return None
    from finetune.batchnorm.measure import measure
    from finetune.distribution.shares import SharedImages

    try:
        return measure(
            model,
            sites,
            lambda: calibration(samples),
            method=method,
            prior=prior,
            memory=memory,
            combine=calibration.combine(samples) if isinstance(calibration, SharedImages) else tuple,
            warn=warn,
        )
    except ValueError as error:
        raise InputError(f"batchnorm: {error}") from error
