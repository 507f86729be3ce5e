"""What a soak came to: a table of its turns, what was found, and the memory of the process that lived through it."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np


def summed_up(record: Path, figure: Path | None) -> str:
    """A Markdown table; the figure is drawn where a place for it is given. record: may end in half a line."""
    lines: list[dict[str, Any]] = []
    for line in record.read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    turns = [line for line in lines if line["kind"] == "turn"]
    calls = [line for line in lines if line["kind"] == "call" and "memory_mb" in line]
    if figure:
        draw(turns, calls, figure)
    findings = [finding for line in lines for finding in line["findings"]]
    commands = sum(len(turn["codes"]) for turn in turns)
    hours = (lines[-1]["at"] - lines[0]["at"]) / 3600
    return "\n".join(
        [
            f"{hours:.2f} hours, {len(turns)} turns, {commands} commands, {len(calls)} calls",
            "",
            *table(turns),
            "",
            memory(calls),
            f"found wrong: {len(findings)}",
            *(f"  {finding}" for finding in findings),
        ]
    )


def table(turns: list[dict[str, Any]]) -> list[str]:
    by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for turn in turns:
        by_kind[turn["what"]].append(turn)
    rows = ["| turn | times | exit codes | most memory, MB | findings |", "|---|---|---|---|---|"]
    for kind, some in sorted(by_kind.items()):
        codes = sorted({code for turn in some for code in turn["codes"]})
        peak = max(turn["peak_mb"] for turn in some)
        found = sum(len(turn["findings"]) for turn in some)
        told = ", ".join(map(str, codes))
        rows.append(f"| {kind.replace('_', ' ')} | {len(some)} | {told} | {peak} | {found} |")
    return rows


def memory(calls: list[dict[str, Any]]) -> str:
    """Of the long-lived process, from the first quarter of its calls on: from least to most, and the line that fits."""
    if len(calls) < 8:
        return "too few calls to speak of memory"
    held = [call["memory_mb"] for call in calls][len(calls) // 4 :]
    each = np.polyfit(np.arange(len(held)), held, 1)[0]
    return (
        f"memory of the long-lived process: {calls[0]['memory_mb']:.0f} MB after its first call, {min(held):.0f} to "
        f"{max(held):.0f} MB after call {len(calls) - len(held)}, where it grows by {each:.2f} MB a call"
    )


def draw(turns: list[dict[str, Any]], calls: list[dict[str, Any]], figure: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    begun = min(line["at"] for line in (*turns, *calls))
    drawing, axes = pyplot.subplots(figsize=(8, 3.2), layout="constrained")
    minutes = [(call["at"] + call["seconds"] - begun) / 60 for call in calls]
    axes.plot(
        minutes, [call["memory_mb"] for call in calls], ".-", lw=0.8, ms=3, label="the long-lived process"
    )
    if turns:
        ended = [(turn["at"] + turn["seconds"] - begun) / 60 for turn in turns]
        most = [turn["peak_mb"] for turn in turns]
        axes.plot(ended, most, "x", ms=4, color="0.5", label="most that a command held")
    axes.set(xlabel="minutes", ylabel="memory, MB", ylim=(0, None))
    axes.legend(loc="lower right", frameon=False)
    drawing.savefig(figure, metadata={"Date": None})
