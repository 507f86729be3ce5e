"""What the stored numbers alone give away: no image is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from finetune.batchnorm.naming import some
from finetune.doctor.facts import SiteFacts
from finetune.doctor.finding import Finding, Severity

SILENT = 1e-12
"""A variance below this is that of a channel that never varied."""

DEAD_SHARE = 0.25
"""Of the channels of a site; pruned and depthwise networks have a few dead ones at home."""

SWALLOWED_SHARE = 0.5
"""Of the channels of a site whose variance is below epsilon; small ones are normal in late layers."""

HALF = ("float16", "bfloat16")


def stored_numbers(facts: Sequence[SiteFacts], repair: str) -> Iterator[Finding]:
    """repair: the command that measures statistics anew."""
    yield from _broken(facts, repair)
    yield from _silent(facts, repair)
    yield from _swallowed(facts)
    yield from _half(facts)
    yield from _never_measured(facts, repair)


def _found(
    facts: Sequence[SiteFacts], is_so: Callable[[SiteFacts], bool], severity: Severity, kind: str
) -> Callable[[str, str, str], Iterator[Finding]]:
    """A finding about the sites for which it is so, if there are any; `{}` in what was measured names them."""
    sites = tuple(each.path for each in facts if is_so(each))

    def finding(measured: str, why: str, fix: str) -> Iterator[Finding]:
        if sites:
            counted = f"{len(sites)} of {len(facts)} sites ({some(sites)})"
            yield Finding(kind, severity, measured.format(counted), why, fix, sites)

    return finding


def _broken(facts: Sequence[SiteFacts], repair: str) -> Iterator[Finding]:
    def is_so(each: SiteFacts) -> bool:
        mean, variance = each.statistics.mean, each.statistics.variance
        return not (np.isfinite(mean).all() and np.isfinite(variance).all() and (variance >= 0).all())

    yield from _found(facts, is_so, "serious", "broken-statistics")(
        "NaN, infinity or a negative variance in the statistics of {}",
        "one such channel makes every prediction NaN",
        repair,
    )


def _silent(facts: Sequence[SiteFacts], repair: str) -> Iterator[Finding]:
    def is_so(each: SiteFacts) -> bool:
        return bool(np.mean(np.abs(each.statistics.variance) < SILENT) > DEAD_SHARE)

    yield from _found(facts, is_so, "warning", "dead-channels")(
        f"a variance of 0 in more than {DEAD_SHARE:.0%} of the channels of {{}}",
        "these channels never varied; any value that does come is divided by sqrt(epsilon) alone and blown up",
        f"{repair}    # if that leaves them at 0, the channels are dead: train with a lower rate",
    )


def _swallowed(facts: Sequence[SiteFacts]) -> Iterator[Finding]:
    def is_so(each: SiteFacts) -> bool:
        variance = each.statistics.variance
        return bool(np.mean((variance < each.epsilon) & (variance >= SILENT)) > SWALLOWED_SHARE)

    yield from _found(facts, is_so, "warning", "epsilon-dominates")(
        f"epsilon is larger than the variance in more than {SWALLOWED_SHARE:.0%} of the channels of {{}}",
        "these sites scale by sqrt(epsilon) more than by their statistics, so that recalibration moves them little, "
        "and a converter with another epsilon changes the predictions",
        "keras.layers.BatchNormalization(epsilon=1e-5)    # or scale the inputs up; keep epsilon when converting",
    )


def _half(facts: Sequence[SiteFacts]) -> Iterator[Finding]:
    yield from _found(facts, lambda each: each.dtype in HALF, "warning", "half-precision-statistics")(
        "the statistics of {} are stored in half precision",
        "steps of 1 % are rounded away before they arrive, so that statistics stop following",
        "keras.config.set_dtype_policy('mixed_bfloat16')    # keeps statistics in float32; a pure half policy does not",
    )


def _never_measured(facts: Sequence[SiteFacts], repair: str) -> Iterator[Finding]:
    def is_so(each: SiteFacts) -> bool:
        return bool(np.all(each.statistics.mean == 0) and np.all(each.statistics.variance == 1))

    yield from _found(facts, is_so, "warning", "initial-statistics")(
        "mean 0 and variance 1 in every channel of {}: as a new layer has them",
        "no training or measurement ever reached them; in service these sites do not normalise",
        repair,
    )
