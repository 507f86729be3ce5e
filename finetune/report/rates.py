"""The loss over the learning rate, policy by policy, as one page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jinja2
import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from finetune.rate_sweep import RateSweep
from finetune.report import figures


def render(sweeps: Mapping[str, RateSweep]) -> str:
    """The page as one string of HTML; every name in it is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("rates.html.jinja").render(sweeps=sweeps, figure=drawn(sweeps))


@matplotlib.rc_context(figures.STYLE)
def drawn(sweeps: Mapping[str, RateSweep]) -> Markup:
    """Points are batches, lines their smoothed course; a triangle marks the steepest fall, a cross the explosion."""
    figure = Figure(figsize=(7.6, 4.2), layout="constrained")
    axes = figure.subplots()
    highest = 0.0
    for number, (name, sweep) in enumerate(sweeps.items()):
        color, smooth = f"C{number % 10}", sweep.smoothed
        axes.plot(sweep.rates, sweep.losses, ".", color=color, alpha=0.25, markersize=4)
        axes.plot(sweep.rates, smooth, color=color, label=name)
        if sweep.steepest is not None:
            axes.plot(
                sweep.steepest, np.interp(sweep.steepest, sweep.rates, smooth), "v", color=color, markersize=9
            )
        if sweep.exploded is not None:
            axes.axvline(sweep.exploded, color=color, linestyle=":", linewidth=1.2)
        highest = max(highest, float(np.median(sweep.losses[:10])) * 2)
    axes.set_xscale("log")
    # the powers of the default are formulas, and no text is read as one here
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_ylim(0, highest)
    axes.set_xlabel("learning rate; a triangle: the steepest fall; dotted: the loss explodes")
    axes.set_ylabel("training loss of a batch")
    axes.legend(frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(color="#e3e6ea")
    return figures.svg(figure)
