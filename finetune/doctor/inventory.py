"""The table of all sites."""

from __future__ import annotations

from collections.abc import Iterator

from finetune.doctor.diagnosis import Diagnosis
from finetune.doctor.facts import SiteFacts

HEADINGS = ("site", "channels", "momentum", "epsilon", "in fit", "positions", "shift (sd)")


def rows(found: Diagnosis) -> Iterator[tuple[str, ...]]:
    """One a site, in call order, under HEADINGS; a dash where it is not known."""
    for each in found.facts:
        moved = found.shifts.get(each.path)
        yield (
            each.path,
            str(each.channels),
            "-" if each.momentum is None else f"{each.momentum:g}",
            f"{each.epsilon:g}",
            _in_fit(each),
            "-" if each.positions is None else str(each.positions),
            "-" if moved is None else f"{moved.mean:.3f}",
        )


def _in_fit(each: SiteFacts) -> str:
    if each.follows is None:
        return "-"
    return "follows" if each.follows else "frozen"
