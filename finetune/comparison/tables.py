"""A comparison as text, as plain values, and as the recipes that it recommends."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune.comparison.comparison import Comparison, Line
from finetune.comparison.grid import Grid
from finetune.recipe import resolved
from finetune.recipe_file import write
from finetune.whole_file import write_whole


def table(comparison: Comparison) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The headings, and a row for each line; settings have a column where there are any."""
    headings = ("policy", "rate", comparison.measured, "validation", "seeds", "seconds")
    rows = [_row(line) for line in comparison.lines]
    if not any(line.arm.setting for line in comparison.lines):
        return headings, rows
    named = [(line.arm.setting or "-", *row) for line, row in zip(comparison.lines, rows, strict=True)]
    return ("setting", *headings), named


def _row(line: Line) -> tuple[str, ...]:
    total = len(line.scores) + len(line.failures)
    return (
        line.arm.name,
        "recipe's" if line.rate is None else f"{line.rate:g}",
        _spread(line.mean, line.spread),
        f"{_mean(line.validation):.3f}" if line.validation else "-",
        f"{len(line.scores)} of {total}",
        f"{line.seconds:.0f}",
    )


def _spread(mean: float, spread: float) -> str:
    if math.isnan(mean):
        return "-"
    return f"{mean:.3f}" if math.isnan(spread) else f"{mean:.3f} ± {spread:.3f}"


def _mean(values: Mapping[int, float]) -> float:
    return sum(values.values()) / len(values)


def plain(comparison: Comparison) -> dict[str, Any]:
    """Everything, as JSON can hold it: an unknown interval is null."""
    return {
        "name": comparison.name,
        "metric": comparison.metric,
        "lines": [
            {
                "setting": line.arm.setting,
                "policy": line.arm.policy,
                "keys": line.arm.keys,
                "learning_rate": line.rate,
                "mean": _or_none(line.mean),
                "spread": _or_none(line.spread),
                "scores": {str(seed): value for seed, value in line.scores.items()},
                "validation": {str(seed): value for seed, value in line.validation.items()},
                "failures": list(line.failures),
                "seconds": line.seconds,
            }
            for line in comparison.lines
        ],
        "verdicts": [
            {
                "setting": setting,
                "words": verdict.words,
                "shown": verdict.shown,
                "better": verdict.pair.better,
                "other": verdict.pair.other,
                "difference": verdict.pair.difference,
                "low": _or_none(verdict.pair.low),
                "high": _or_none(verdict.pair.high),
                "p": verdict.pair.p,
                "seeds": verdict.pair.seeds,
            }
            for setting, some in comparison.verdicts.items()
            for verdict in some
        ],
        "recommended": {setting: line.arm.name for setting, line in comparison.recommended.items()},
    }


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def write_recommended(comparison: Comparison, grid: Grid, folder: Path) -> dict[str, Path]:
    """By setting, the recipe that did best on validation, ready for `finetune run`."""
    written = {}
    for setting, line in comparison.recommended.items():
        recipe = grid.cell(line.arm, line.rate, 0).recipe
        path = folder / (f"recommended_{_file_name(setting)}.yaml" if setting else "recommended.yaml")
        write_whole(path, f"{_header(comparison, line)}\n{write(resolved(recipe))}")
        written[setting] = path
    return written


def _file_name(setting: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", setting).strip("_")


def _header(comparison: Comparison, line: Line) -> str:
    others = [
        other for other in comparison.lines if other.arm.setting == line.arm.setting and other is not line
    ]
    named = ", ".join(f"{other.arm.name} {_spread(other.mean, other.spread)}" for other in others)
    return "\n".join(
        (
            f"# Chosen by finetune compare on validation: {line.arm.name}.",
            f"# {comparison.measured.capitalize()} {_spread(line.mean, line.spread)} over {len(line.scores)} seeds"
            + (f"; {named}." if named else "."),
        )
    )
