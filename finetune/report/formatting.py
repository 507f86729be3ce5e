"""Figures as a person reads them."""

from __future__ import annotations

import math


def share(value: float) -> str:
    """A share as a percentage with one decimal place."""
    return f"{100 * value:.1f} %"


def number(value: float) -> str:
    """Four significant digits, without the exponent where it can be avoided."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.4g}" if abs(value) >= 1e-4 else f"{value:.2e}"
