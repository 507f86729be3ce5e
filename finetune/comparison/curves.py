"""Scores against what varies, where that is a number: one curve for each policy and everything else that varies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from finetune.comparison.comparison import Line
from finetune.report import figures

ENOUGH = 3
"""Values of a key from which on a curve says more than a table."""


@dataclass(frozen=True)
class Curve:
    """name: what all its points have in common. points: (value, line), in ascending order."""

    name: str
    points: tuple[tuple[float, Line], ...]


def curves(lines: Sequence[Line]) -> tuple[str, tuple[Curve, ...]] | None:
    """The key on the x-axis and the curves above it; None where no number varies enough."""
    values: dict[str, set[float]] = {}
    for line in lines:
        for key, value in _varied(line).items():
            values.setdefault(key, set()).update([value] if value is not None else [])
    axes = [key for key, some in values.items() if len(some) >= ENOUGH]
    if not axes:
        return None
    key = axes[0]
    found: dict[str, list[tuple[float, Line]]] = {}
    for line in lines:
        value = _varied(line).get(key)
        if value is not None:
            found.setdefault(_rest(line, key), []).append((value, line))
    return key, tuple(
        Curve(name, tuple(sorted(points, key=lambda point: point[0]))) for name, points in found.items()
    )


def _varied(line: Line) -> dict[str, float | None]:
    """By key, the number that it has here; None for what is no number."""
    found: dict[str, float | None] = {}
    for override in line.arm.overrides:
        key, _, value = override.partition("=")
        try:
            found[key] = float(value)
        except ValueError:
            found[key] = None
    return found


def _rest(line: Line, key: str) -> str:
    others = [text.rpartition(".")[2] for text in line.arm.overrides if not text.startswith(f"{key}=")]
    return " ".join([line.arm.policy, *others])


@matplotlib.rc_context(figures.STYLE)
def drawn(key: str, some: Sequence[Curve], measured: str) -> Markup:
    """Mean and standard deviation over seeds; the values stand at equal distances, whatever their size."""
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.subplots()
    places = {value: place for place, value in enumerate(sorted({v for c in some for v, _ in c.points}))}
    for number, curve in enumerate(some):
        shown = [(places[value], line) for value, line in curve.points if line.scores]
        axes.errorbar(
            [place for place, _ in shown],
            [line.mean for _, line in shown],
            # one seed has no spread
            [line.spread if len(line.scores) > 1 else 0.0 for _, line in shown],
            label=curve.name,
            marker="osD^v"[number % 5],
            markersize=4,
            capsize=2,
            color=f"C{number % 10}",
        )
    axes.set_xticks(range(len(places)), [f"{value:g}" for value in places])
    axes.set_xlabel(key)
    axes.set_ylabel(measured)
    axes.legend(frameon=False, fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color="#e3e6ea")
    return figures.svg(figure)
