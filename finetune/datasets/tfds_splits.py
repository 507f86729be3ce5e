"""Split expressions as ranges of images: what a run reads must exist, hold images and not overlap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import tensorflow_datasets as tfds

from finetune.errors import DataError

Ranges = dict[str, list["ImageRange"]]


@dataclass(frozen=True)
class ImageRange:
    """Images start <= position < stop of one stored split."""

    stored: str
    start: int
    stop: int

    @property
    def count(self) -> int:
        return max(0, self.stop - self.start)

    def shared(self, other: ImageRange) -> int:
        """How many images are in both."""
        if self.stored != other.stored:
            return 0
        return max(0, min(self.stop, other.stop) - max(self.start, other.start))


def resolve_splits(
    dataset: str, written: Mapping[str, str | None], stored: tfds.core.SplitDict
) -> tuple[dict[str, str], Ranges]:
    """Fill in what was left out; the expressions and their ranges. Raises DataError with every problem."""
    problems: list[str] = []
    expressions = {name: text for name, text in written.items() if text is not None}
    if "validation" not in expressions:
        if "validation" in stored:
            expressions["validation"] = "validation"
        else:
            problems.append(
                f"data.validation: no validation data: {dataset} has the splits {', '.join(stored)}; "
                'write train: "train[:90%]" and validation: "train[90%:]"'
            )
    ranges: Ranges = {}
    for name, expression in expressions.items():
        try:
            ranges[name] = image_ranges(expression, stored)
        except ValueError as error:
            problems.append(f"data.{name}: {expression!r}: {str(error).splitlines()[-1]}")
    problems += overlaps(expressions, ranges)
    if problems:
        raise DataError(problems)
    if "calibration" not in expressions:
        expressions["calibration"], ranges["calibration"] = expressions["train"], ranges["train"]
    return expressions, ranges


def image_ranges(expression: str, stored: tfds.core.SplitDict) -> list[ImageRange]:
    """Raises ValueError for an expression that is none, asks for what is not there, or holds no image."""
    absolute = tfds.core.ReadInstruction.from_spec(expression).to_absolute(stored)
    ranges = [
        ImageRange(
            part.splitname,
            part.from_ or 0,
            stored[part.splitname].num_examples if part.to is None else part.to,
        )
        for part in absolute
    ]
    if not any(part.count for part in ranges):
        raise ValueError("It holds no image.")
    return ranges


def overlaps(expressions: Mapping[str, str], ranges: Ranges) -> list[str]:
    """One line for every two splits that share images; calibration uses no labels and may share with train."""
    lines = []
    for one, other in combinations(ranges, 2):
        shared = sum(a.shared(b) for a in ranges[one] for b in ranges[other])
        if shared and {one, other} != {"train", "calibration"}:
            lines.append(
                f"data.{one}: {expressions[one]!r} and data.{other}: {expressions[other]!r} share {shared} images"
            )
    return lines
