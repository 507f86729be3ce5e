"""Learning curves and shift by depth as figures, and figures as inline SVG."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from finetune.result import EpochRecord, SiteRecord

TRAIN, VALIDATION, GREY = "#2563a8", "#d9691e", "#6b7280"

# Any: the names that matplotlib's own types know differ between its versions
STYLE: Any = {
    # ids inside the SVG are hashes: without a salt of our own they differ from run to run
    "svg.hashsalt": "finetune",
    # text stays text: small, selectable, and in any script the browser has a font for
    "svg.fonttype": "none",
    "font.size": 10,
    # a class called $x$ is no formula; read when a text is made, not when it is drawn
    "text.parse_math": False,
}

SHIFT_PANELS = (
    ("shift_mean", "mean\n(earlier sd)"),
    ("shift_log_std", "log_std"),
    ("shift_kl", "kl\n(nats)"),
)

NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def svg(figure: Figure) -> Markup:
    """The figure as an <svg> element, equal for equal figures; names in it are escaped by matplotlib."""
    text = io.StringIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # only the measuring font lacks these characters, not the browser's
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        for patch in (figure.patch, *(axes.patch for axes in figure.axes)):
            patch.set(facecolor="none", edgecolor="none")
        # savefig would draw a figure with a layout twice
        FigureCanvasSVG(figure).print_svg(text, metadata=NO_METADATA)
    drawing = text.getvalue()
    return Markup(drawing[drawing.index("<svg") :])


@matplotlib.rc_context(STYLE)
def learning_curves(epochs: Sequence[EpochRecord]) -> tuple[Markup, ...]:
    """One figure each for loss and accuracy, training and validation together; none without epochs."""
    measures = [m for m in ("loss", "accuracy") if epochs and f"train/{m}" in epochs[0].metrics]
    return tuple(svg(_learning_curve(epochs, measure)) for measure in measures)


def _learning_curve(epochs: Sequence[EpochRecord], measure: str) -> Figure:
    figure = Figure(figsize=(5.2, 3.3), layout="constrained")
    axes = figure.subplots()
    steps = [record.step for record in epochs]
    for split, colour in (("train", TRAIN), ("validation", VALIDATION)):
        values = [record.metrics.get(f"{split}/{measure}", math.nan) for record in epochs]
        axes.plot(steps, values, "o-", color=colour, markersize=4, label=split)
    _mark_stages(axes, epochs)
    axes.set_xlabel("epoch")
    axes.set_title(measure, loc="left", fontweight="bold")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    _tidy(axes)
    return figure


def _mark_stages(axes: Axes, epochs: Sequence[EpochRecord]) -> None:
    for before, after in pairwise(epochs):
        if before.stage != after.stage:
            axes.axvline((before.step + after.step) / 2, color=GREY, linestyle=":", linewidth=1)
            axes.annotate(
                f"stage {after.stage}",
                ((before.step + after.step) / 2, 1),
                xycoords=("data", "axes fraction"),
                xytext=(4, -2),
                textcoords="offset points",
                va="top",
                color=GREY,
                fontsize=9,
            )


@matplotlib.rc_context(STYLE)
def shift_by_depth(sites: Sequence[SiteRecord]) -> Figure:
    """The three measures of the shift over the sites in call order."""
    figure = Figure(figsize=(9.6, 5.2), layout="constrained")
    indices = [site.index for site in sites]
    panels = figure.subplots(len(SHIFT_PANELS), sharex=True)
    for axes, (field, label) in zip(panels, SHIFT_PANELS, strict=True):
        values = [getattr(site, field) for site in sites]
        axes.bar(indices, values, color=TRAIN, width=0.8)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        _tidy(axes)
    panels[-1].set_xlabel("BN site, from the input to the output")
    panels[-1].set_xlim(-0.7, max(indices) + 0.7)
    return figure


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
