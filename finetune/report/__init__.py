"""report.html: what a run was, what it reached and whether its BN policy held, in one file that needs nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import yaml

from finetune.errors import OutputError
from finetune.masking import masked
from finetune.report import figures
from finetune.report.card import write_card
from finetune.report.confusion import confusion_matrix, most_confused
from finetune.report.definitions import SHIFT, definitions_of
from finetune.report.formatting import number, share
from finetune.result import RunResult
from finetune.whole_file import write_whole

__all__ = ["confusion_matrix", "write_card", "write_report"]


def write_report(result: RunResult, path: Path) -> None:
    """Write the report beside `path` and rename it, so that nobody reads half of one. Raises OutputError."""
    page = render(result)
    try:
        write_whole(path, page)
    except OSError as error:
        raise OutputError(
            f"{path}: the report could not be written ({error.strerror}); make room or choose another folder"
        ) from error


def render(result: RunResult) -> str:
    """The page as one string of HTML. Every name and text in it is escaped; passwords in URIs are masked."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(share=share, number=number)
    return environment.get_template("template.html.jinja").render(
        result=result,
        metrics=definitions_of(result.test),
        shift=SHIFT,
        curves=figures.learning_curves(result.epochs),
        depth=figures.svg(figures.shift_by_depth(result.sites)) if _moved(result) else None,
        **_of_classes(result),
        recipe=masked(yaml.safe_dump(_plain(result.recipe), sort_keys=False, allow_unicode=True)),
        provenance=masked(json.dumps(_plain(result.provenance), indent=2, ensure_ascii=False)),
    )


def _of_classes(result: RunResult) -> dict[str, Any]:
    """Which classes are taken for which; of multi-label images, how well each is found."""
    if result.test.by_class:
        by_class = zip(result.class_names, result.test.by_class, strict=True)
        return {"by_class": list(by_class), "confusion": None, "confused": []}
    return {
        "by_class": [],
        "confusion": figures.svg(confusion_matrix(result.test.confusion, result.class_names)),
        "confused": most_confused(result.test.confusion, result.class_names),
    }


def _moved(result: RunResult) -> bool:
    return any(site.shift_kl != 0 for site in result.sites)


def _plain(values: Any) -> Any:
    """Tuples as lists, paths and dates as texts."""
    return json.loads(json.dumps(values, default=str))
