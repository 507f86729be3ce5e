"""data.html: the look at the data in one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jinja2

from finetune.datasheet.look import DataLook
from finetune.datasheet.pictures import Pair
from finetune.report.formatting import number

PACKAGE = Path(__file__).parents[1]


def render(look: DataLook, pairs: Sequence[Pair]) -> str:
    """The page as one string of HTML; every name in it is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([PACKAGE / "datasheet", PACKAGE / "report"]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, three=three)
    most = max(look.readings[0].counts)
    classes = [
        {
            "name": name,
            "share": round(100 * look.readings[0].counts[i] / max(most, 1)),
            "counts": [reading.counts[i] for reading in look.readings],
        }
        for i, name in enumerate(look.class_names)
    ]
    return environment.get_template("page.html.jinja").render(look=look, pairs=pairs, classes=classes)


def three(values: Sequence[float]) -> str:
    """One figure a channel."""
    return ", ".join(number(value) for value in values)
