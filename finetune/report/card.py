"""model_card.md: what someone who is handed the model should know, after Mitchell et al. 2019 (arXiv:1810.03993)."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import jinja2
import numpy as np

from finetune.report.definitions import definitions_of
from finetune.report.formatting import number, share
from finetune.result import RunResult
from finetune.whole_file import write_whole

WEAKEST = 5
"""Classes that are listed."""


@dataclass(frozen=True)
class WeakClass:
    """recall: share of its `images` test images that were found. taken_for: the class that most of the others got; of
    multi-label images, none."""

    name: str
    recall: float
    images: int
    taken_for: str


def write_card(result: RunResult, path: Path) -> None:
    """Write the card beside `path` and rename it."""
    write_whole(path, card(result))


def card(result: RunResult) -> str:
    """As Markdown with a YAML header, as model hubs read it. Names cannot break out of their place in it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        # Markdown, not HTML: `text` escapes what either would take for its own
        autoescape=False,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(share=share, number=number, text=text)
    origin, data = (result.provenance.get(key, {}) for key in ("weights", "data"))
    weights = (
        " ".join(str(origin[key]) for key in ("source", "name") if origin.get(key)) or "weights of its own"
    )
    return environment.get_template("model_card.md.jinja").render(
        result=result,
        metrics=definitions_of(result.test),
        weakest=weakest(result),
        absent=[name for name, images in zip(result.class_names, _images(result), strict=True) if not images],
        moved=fmean(site.shift_mean for site in result.sites) if result.sites else 0.0,
        weights=text(weights),
        weights_licence=origin.get("licence") or "not known",
        data_licence=data.get("licence") or "not known",
        versions=", ".join(f"{name} {each}" for name, each in result.provenance.get("versions", {}).items()),
    )


def weakest(result: RunResult) -> list[WeakClass]:
    """The classes with the lowest recall, lowest first; none where every image was found."""
    if result.test.by_class:
        missed = [
            WeakClass(name, counts.recall, counts.images, "")
            for name, counts in zip(result.class_names, result.test.by_class, strict=True)
            if counts.missed
        ]
        return sorted(missed, key=lambda row: row.recall)[:WEAKEST]
    confusion = np.asarray(result.test.confusion)
    rows = []
    for true, row in enumerate(confusion):
        images, found = int(row.sum()), int(row[true])
        if images > found:
            others = np.where(np.arange(len(row)) == true, -1, row)
            rows.append(
                WeakClass(
                    result.class_names[true], found / images, images, result.class_names[others.argmax()]
                )
            )
    return sorted(rows, key=lambda row: row.recall)[:WEAKEST]


def _images(result: RunResult) -> list[int]:
    if result.test.by_class:
        return [counts.images for counts in result.test.by_class]
    return [sum(row) for row in result.test.confusion]


def text(words: object) -> str:
    """One line that neither HTML nor a Markdown table takes for markup."""
    escaped = html.escape(" ".join(str(words).split()), quote=False)
    for sign in "\\`*_[]|":
        escaped = escaped.replace(sign, f"\\{sign}")
    return escaped
