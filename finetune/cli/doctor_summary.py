"""A diagnosis in the terminal, and as plain values for scripts."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from finetune.cli.profile import profile
from finetune.doctor.inventory import HEADINGS, rows

if TYPE_CHECKING:
    from finetune.doctor.diagnosis import Diagnosis
    from finetune.doctor.finding import Finding

WIDTH = 110
MARKS = {"serious": "✗ serious", "warning": "! warning", "note": "· note"}


def in_words(found: Diagnosis, all_sites: bool) -> str:
    """The findings, most serious first; the inventory where it is asked for."""
    lines = [f"{found.address}: {found.format}, {len(found.facts)} BN sites", ""]
    for finding in found.findings:
        lines += [*_finding(finding), ""]
    lines += list(_on_images(found))
    counts = {mark: sum(each.severity == mark for each in found.findings) for mark in MARKS}
    lines.append(", ".join(f"{count} {mark}" for mark, count in counts.items() if count) or "nothing found")
    return "\n".join([*lines, *(["", *_inventory(found)] if all_sites else [])])


def _finding(finding: Finding) -> Iterator[str]:
    for title, text in ((MARKS[finding.severity], finding.measured), ("  why", finding.why)):
        yield from textwrap.wrap(
            text, WIDTH, initial_indent=f"{title:12}", subsequent_indent=" " * 12, break_on_hyphens=False
        )
    # never wrapped: it is to be copied
    yield f"{'  do':12}{finding.fix}"


def _on_images(found: Diagnosis) -> Iterator[str]:
    if found.shifts:
        means = [each.mean for each in found.shifts.values()]
        average = sum(means) / len(means)
        yield f"shift       {average:.3f} sd on average over {found.images} images"
        yield f"            {profile(means)}  by depth"
    if found.gap:
        batch = "" if found.gap.batch is None else f", batch {found.gap.batch:.3f}"
        yield f"accuracy    stored {found.gap.running:.3f}{batch}, freshly measured {found.gap.fresh:.3f}"


def _inventory(found: Diagnosis) -> list[str]:
    from rich.console import Console
    from rich.table import Table

    table = Table(*HEADINGS, box=None, pad_edge=False)
    for row in rows(found):
        table.add_row(*row)
    console = Console(width=WIDTH)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip().splitlines()


def plain_values(found: Diagnosis) -> dict[str, Any]:
    """For --json."""
    return {
        "subject": found.address,
        "format": found.format,
        "serious": found.serious,
        "findings": [dataclasses.asdict(finding) for finding in found.findings],
        "images": found.images,
        "gap": dataclasses.asdict(found.gap) if found.gap else None,
        "sites": [
            {
                "path": each.path,
                "channels": each.channels,
                "calls": each.calls,
                "momentum": each.momentum,
                "epsilon": each.epsilon,
                "follows": each.follows,
                "positions": each.positions,
                "dtype": each.dtype,
                "shift": dataclasses.asdict(found.shifts[each.path]) if each.path in found.shifts else None,
            }
            for each in found.facts
        ],
    }
