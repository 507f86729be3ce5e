"""Site paths in a sentence: a ResNet has 53 of them, and a person reads three."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

SHOWN = 3


def some(paths: Sequence[str]) -> str:
    """`a, b, c and 50 more`, in the order given."""
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return ", ".join(paths[:SHOWN]) + more


def named(paths: Iterable[str]) -> str:
    """To end a sentence with: `: a, b, c and 50 more`, sorted; nothing where there are none."""
    listed = sorted(paths)
    return f": {some(listed)}" if listed else ""
