"""compare.html: the table, the verdicts and every seed as a dot, in one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from finetune.comparison.comparison import Comparison, Line
from finetune.comparison.curves import curves, drawn
from finetune.comparison.tables import table
from finetune.report import figures

PACKAGE = Path(__file__).parents[1]


def render(comparison: Comparison, recommended: Mapping[str, Path]) -> str:
    """The page as one string of HTML; every name in it is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([PACKAGE / "comparison", PACKAGE / "report"]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    settings = {
        setting: [line for line in comparison.lines if line.arm.setting == setting]
        for setting in comparison.verdicts
    }
    curve, (headings, rows) = curves(comparison.lines), table(comparison)
    return environment.get_template("page.html.jinja").render(
        comparison=comparison,
        headings=headings,
        rows=rows,
        dots={setting: every_seed(lines, comparison.measured) for setting, lines in settings.items()},
        recommended=recommended,
        curve=drawn(*curve, comparison.measured) if curve else None,
    )


@matplotlib.rc_context(figures.STYLE)
def every_seed(lines: Sequence[Line], measured: str) -> Markup:
    """Scores by policy: a dot a seed, the mean as a bar."""
    figure = Figure(figsize=(7.2, 0.55 * len(lines) + 0.9), layout="constrained")
    axes = figure.subplots()
    for place, line in enumerate(lines):
        values = list(line.scores.values())
        axes.plot(values, [place] * len(values), "o", color=figures.TRAIN, alpha=0.45, markersize=6)
        if values:
            axes.plot([line.mean], [place], "|", color=figures.VALIDATION, markersize=20, markeredgewidth=2.5)
    axes.set_yticks(range(len(lines)), [line.arm.name for line in lines])
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_xlabel(f"{measured}: a dot a seed, the bar is their mean")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="x", color="#e3e6ea")
    axes.set_axisbelow(True)
    return figures.svg(figure)
