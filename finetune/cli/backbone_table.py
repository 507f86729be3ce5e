"""The table of `finetune list backbones`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = ("name", "sites", "channels", "momentum", "epsilon", "parameters", "px", "preprocessing", "weights")
NUMBERS = {"sites", "channels", "momentum", "epsilon", "parameters", "px"}


def print_backbones(facts: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """facts: as finetune.backbones.facts returns them, of the sources that are wanted."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    for source, rows in facts.items():
        table = Table(box=None, pad_edge=False, title=f"source: {source}", title_justify="left")
        for column in COLUMNS:
            table.add_column(
                column, no_wrap=column == "name", justify="right" if column in NUMBERS else "left"
            )
        for name, row in rows.items():
            table.add_row(name, *_cells(row))
        console.print(table)
        console.print()
    console.print(
        "channels: of all BN sites together; momentum: Keras', the share of the old value; parameters: without a top;\n"
        "-: a preset's network is described on its server; keras_hub needs the extra `hub`"
    )


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        _count(row["sites"]),
        _count(row["channels"]),
        _numbers(row["momentum"]),
        _numbers(row["epsilon"]),
        f"{row['parameters'] / 1e6:.1f}M",
        str(row["image_size"]),
        row["preprocessing"],
        row["weights"],
    ]


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _numbers(values: Sequence[float] | None) -> str:
    return ", ".join(f"{value:.6g}" for value in values or ()) or "-"
