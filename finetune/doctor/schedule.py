"""What a planned training would do to the statistics: how much of the old is left, how many positions stand behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from finetune.batchnorm.horizon import MOST_LEFT, Stretch, share_left, short_horizon
from finetune.batchnorm.positions import few_positions, too_few_positions
from finetune.batchnorm.sites import BNSite
from finetune.doctor.finding import Finding

MOSTLY_OLD = 0.5
"""With more of the initial statistics left, a network guesses in service whatever it learned."""


def schedule(sites: Sequence[BNSite], steps: int | None, batch_size: int | None) -> Iterator[Finding]:
    """Of the sites that follow the batch. steps: of the whole training. What is not known is not judged."""
    following = [site for site in sites if site.calls and site.mode == "batch"]
    if steps is not None:
        yield from _horizon(following, steps)
    if batch_size is not None:
        yield from _positions(following, batch_size)


def _horizon(following: Sequence[BNSite], steps: int) -> Iterator[Finding]:
    stretches = {site.path: [Stretch(site.momentum, steps)] for site in following}
    left = {path: share_left(some) for path, some in stretches.items()}
    slow = tuple(path for path, share in left.items() if share > MOST_LEFT)
    for words in short_horizon(stretches):
        yield Finding(
            "short-horizon",
            "serious" if max(left.values()) > MOSTLY_OLD else "warning",
            words.split(": momentum: ")[0],
            "in service the network normalises with statistics that are partly those from before the training",
            "batchnorm: {policy: retrain, momentum: auto, finish: recalibrate}    # in a recipe",
            slow,
        )


def _positions(following: Sequence[BNSite], batch_size: int) -> Iterator[Finding]:
    problems, warnings = too_few_positions(following, batch_size), few_positions(following, batch_size)
    for severity, some in (("serious", problems), ("warning", [] if problems else warnings)):
        for words in some:
            yield Finding(
                "few-positions",
                severity,  # type: ignore[arg-type]
                words.split("; ")[0],
                "the spread of so few values is mostly noise, and of one it is 0",
                "batchnorm: {policy: freeze}    # or larger batches",
            )
