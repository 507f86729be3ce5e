"""Pictures that a table lists: one row an image, with its path and its class."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from finetune.datasets.base import SPLIT_NAMES
from finetune.datasets.picture_files import Fractions, PictureFiles

if TYPE_CHECKING:
    from finetune.datasets.folder_scan import Picture

Row = Mapping[str, str]

NAMED = 5
"""Rows that a message names; the others are counted."""


class ImageTable(PictureFiles):
    """A .csv, .tsv or .parquet table with one row an image: its path, its class and, where it says so, its split.

    Any kind of picture is read as RGB; transparency lies over white. The licence is not known.
    """

    source: Literal["image_table"] = "image_table"
    root: str | None = Field(
        None, description="what paths are relative to; the folder of the table where left out"
    )
    path_column: str = "path"
    label_column: str = "label"
    label_separator: str | None = Field(
        None,
        min_length=1,
        description="between the classes in a cell, such as ; in cat;dog: an image shows any number of classes (none"
        " where the cell is empty), each with a probability of its own",
    )
    split_column: str | None = Field(
        None, description="train, validation, test or calibration; left out, `fractions` divide"
    )

    def _find(self, seed: int) -> tuple[tuple[str, ...], dict[str, list[Picture]], list[str]]:
        from finetune.datasets.folder_scan import Picture
        from finetune.datasets.folder_split import divide
        from finetune.datasets.table_rows import read_rows
        from finetune.errors import DataError

        table = Path(self.path).expanduser()
        rows = read_rows(table)
        problems = [*self._of_columns(table, rows)]
        if not problems:
            problems += [*self._of_rows(table, rows)]
        if problems:
            raise DataError(problems)
        names = class_names(name for row in rows for name in self._classes(row))
        place = self._place(table)
        pictures = [
            Picture(place / row[self.path_column], row[self.path_column], self._label(row, names))
            for row in rows
        ]
        if self.split_column is None:
            shares = (self.fractions or Fractions()).model_dump()
            return names, divide(pictures, names, shares, seed), []
        found: dict[str, list[Picture]] = {}
        for row, picture in zip(rows, pictures, strict=True):
            found.setdefault(row[self.split_column], []).append(picture)
        return names, found, []

    def _classes(self, row: Row) -> list[str]:
        cell = row[self.label_column]
        if self.label_separator is None:
            return [cell]
        return [name.strip() for name in cell.split(self.label_separator) if name.strip()]

    def _label(self, row: Row, names: Sequence[str]) -> int | tuple[int, ...]:
        found = self._classes(row)
        if self.label_separator is None:
            return names.index(found[0])
        return tuple(int(name in found) for name in names)

    def _place(self, table: Path) -> Path:
        return table.parent if self.root is None else Path(self.root).expanduser()

    def _of_columns(self, table: Path, rows: Sequence[Row]) -> Iterator[str]:
        if not rows:
            yield f"data.path: {table} has no row"
            return
        wanted = {"path": self.path_column, "label": self.label_column, "split": self.split_column}
        for key, column in wanted.items():
            if column is not None and column not in rows[0]:
                yield f"data.{key}_column: {table} has no column {column!r}, but {', '.join(rows[0])}"
        if self.split_column is not None and self.fractions is not None:
            yield f"data.fractions: {table} is divided by its column {self.split_column} already; leave fractions out"

    def _of_rows(self, table: Path, rows: Sequence[Row]) -> Iterator[str]:
        paths = [row[self.path_column] for row in rows]
        place = self._place(table)
        yield from _listed(
            f"data.path: {table} lists files that are not there (relative to {place}; set root)",
            [path for path in dict.fromkeys(paths) if path and not (place / path).is_file()],
        )
        twice = [path for path, count in Counter(paths).items() if path and count > 1]
        yield from _listed(f"data.path: {table} lists files twice", twice)
        needed = (self.path_column,) if self.label_separator else (self.path_column, self.label_column)
        for column in needed:
            # the first row is under the heading
            empty = [f"row {number}" for number, row in enumerate(rows, 2) if not row[column]]
            yield from _listed(f"data.path: {table} has rows without {column}", empty)
        labels = class_names(name for row in rows for name in self._classes(row))
        if len(labels) < 2:
            found = f"one class only, {labels[0]}" if labels else "no class"
            yield f"data.path: {table} has {found}; at least two are needed"
        if self.split_column is not None:
            yield from self._of_splits(table, [row[self.split_column] for row in rows])

    def _of_splits(self, table: Path, splits: Sequence[str]) -> Iterator[str]:
        found = dict.fromkeys(splits)
        wrong = [repr(split) for split in found if split not in SPLIT_NAMES]
        yield from _listed(
            f"data.split_column: {table} has splits that are none of {', '.join(SPLIT_NAMES)}", wrong
        )
        for split in ("train", "validation", "test"):
            if split not in found:
                yield f"data.split_column: {table} has no {split} data"


def _listed(what: str, some: Sequence[str]) -> Iterator[str]:
    if some:
        more = f" and {len(some) - NAMED} more" if len(some) > NAMED else ""
        yield f"{what}: {', '.join(some[:NAMED])}{more}"


def class_names(labels: Iterator[str]) -> tuple[str, ...]:
    """Sorted as numbers where all are."""
    found = set(labels)
    numbers = all(re.fullmatch(r"-?\d+", label) for label in found)
    return tuple(sorted(found, key=(lambda label: (int(label), label)) if numbers else None))
