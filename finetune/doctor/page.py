"""doctor.html: findings, shift by depth, and every site, in one file that needs nothing else."""

from __future__ import annotations

from pathlib import Path

import jinja2
import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from finetune.doctor.diagnosis import Diagnosis
from finetune.doctor.inventory import HEADINGS, rows
from finetune.report import figures

PACKAGE = Path(__file__).parents[1]


def render(found: Diagnosis) -> str:
    """The page as one string of HTML; every name in it is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([PACKAGE / "doctor", PACKAGE / "report"]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja").render(
        found=found,
        headings=HEADINGS,
        rows=list(rows(found)),
        depth=by_depth(found) if found.shifts else None,
        modes=by_mode(found) if found.gap else None,
    )


@matplotlib.rc_context(figures.STYLE)
def by_depth(found: Diagnosis) -> Markup:
    """How far each site is from what it stores, in call order."""
    figure = Figure(figsize=(7.2, 2.4), layout="constrained")
    axes = figure.subplots()
    means = [each.mean for each in found.shifts.values()]
    axes.bar(range(len(means)), means, color=figures.TRAIN)
    axes.set_xlabel("site, in call order")
    axes.set_ylabel("shift of the mean (sd)")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figures.svg(figure)


@matplotlib.rc_context(figures.STYLE)
def by_mode(found: Diagnosis) -> Markup:
    """Accuracy on the same images under stored, batch and fresh statistics."""
    if found.gap is None:
        return Markup()
    values = {"stored": found.gap.running, "batch": found.gap.batch, "freshly measured": found.gap.fresh}
    known = {name: value for name, value in values.items() if value is not None}
    figure = Figure(figsize=(7.2, 0.45 * len(known) + 0.7), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(list(known), list(known.values()), color=figures.VALIDATION)
    axes.bar_label(bars, fmt="%.3f", padding=4)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1)
    axes.set_xlabel(f"accuracy on {found.gap.images} images")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figures.svg(figure)
