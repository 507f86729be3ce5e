"""The rows of a .csv, .tsv or .parquet table as text."""

from __future__ import annotations

from pathlib import Path

import pyarrow
from pyarrow import csv, parquet

from finetune.errors import DataError, first_line

DELIMITERS = {".csv": ",", ".tsv": "\t"}


def read_rows(table: Path) -> list[dict[str, str]]:
    """Every cell as text, without spaces around it; an absent one is empty. Raises DataError."""
    suffix = table.suffix.lower()
    if suffix not in (*DELIMITERS, ".parquet"):
        raise DataError(f"data.path: {table}: expected a .csv, .tsv or .parquet table")
    if not table.is_file():
        raise DataError(f"data.path: there is no file {table}")
    try:
        read = parquet.read_table(table) if suffix == ".parquet" else _separated(table, DELIMITERS[suffix])
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"data.path: {table} cannot be read as a table: {first_line(error)}") from error
    return [
        {name: "" if value is None else str(value).strip() for name, value in row.items()}
        for row in read.to_pylist()
    ]


def _separated(table: Path, delimiter: str) -> pyarrow.Table:
    options = csv.ParseOptions(delimiter=delimiter)
    names = csv.open_csv(table, parse_options=options).schema.names
    # 007 is a name, and no number
    texts = csv.ConvertOptions(column_types=dict.fromkeys(names, pyarrow.string()))
    return csv.read_csv(table, parse_options=options, convert_options=texts)
