"""A table on the terminal, or as the documentation has it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


def print_table(
    headings: Sequence[str], lines: Sequence[Sequence[str]], title: str, *, markdown: bool
) -> None:
    if markdown:
        first, *rest = ["| " + " | ".join(cells) + " |" for cells in (headings, *lines)]
        print("\n".join([first, "|" + "---|" * len(headings), *rest]), f"\n{title}\n", sep="\n")
        return
    table = Table(*headings, title=title)
    for cells in lines:
        table.add_row(*cells)
    # wide enough for every cell also where the output is a file
    Console(width=200).print(table)
