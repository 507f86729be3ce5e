"""One finding: what was measured, why it matters, what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["serious", "warning", "note"]

ORDER: tuple[Severity, ...] = ("serious", "warning", "note")
"""Serious: predictions are wrong, or will be after the next thing one does. Warning: look at it. Note: know it."""


@dataclass(frozen=True)
class Finding:
    """kind: its name in --json. fix: one command or one line of code. sites: paths, in call order."""

    kind: str
    severity: Severity
    measured: str
    why: str
    fix: str
    sites: tuple[str, ...] = ()


def by_severity(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The serious ones first; otherwise in the order in which they were looked for."""
    return tuple(sorted(findings, key=lambda finding: ORDER.index(finding.severity)))
