"""A value per BN site as one line of bars."""

from __future__ import annotations

from collections.abc import Sequence

BARS = "▁▂▃▄▅▆▇█"
MOST_BARS = 53
"""Sites that are shown one by one; of more than these, neighbours share a bar."""


def profile(values: Sequence[float]) -> str:
    """One bar a site in call order; the highest bar is the largest value, which must be above 0."""
    share = -(-len(values) // MOST_BARS)
    heights = [max(values[start : start + share]) for start in range(0, len(values), share)]
    return "".join(BARS[round(height / max(heights) * (len(BARS) - 1))] for height in heights)
