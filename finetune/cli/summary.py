"""A finished run in a dozen lines, and as plain values for scripts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from finetune.cli.profile import profile
from finetune.result import Evaluation, RunResult, SiteRecord

SHOWN = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced",
    "cross_entropy": "cross-entropy",
    "expected_calibration_error": "calibration error",
    "roc_auc": "ROC AUC",
}
"""What the terminal has of the metrics, which are all in the report and under --json."""

SHOWN_OF_FLAGS = {
    "accuracy": "accuracy",
    "exact_match": "all classes right",
    "macro_f1": "macro F1",
    "average_precision": "average precision",
    "cross_entropy": "cross-entropy",
}
"""The same of multi-label images."""


def summary(result: RunResult) -> str:
    """What came out, what it rests on, where it lies and what to type next."""
    checks = [f"{'✓' if check.passed else '✗'} {check.name}: {check.detail}" for check in result.checks]
    rows = [
        ("policy", [result.policy]),
        ("test", [metrics_line(result.test)]),
        ("proof", checks),
        ("shift", _shift_lines(result.sites)),
        ("notes", list(result.notes)),
        ("took", [", ".join(f"{phase} {seconds:.0f} s" for phase, seconds in result.seconds.items())]),
        ("report", [str(result.folder / "report.html")]),
        ("model", [str(result.folder / "model.keras")]),
        ("next", ["finetune ui", f"finetune evaluate {result.folder}"]),
    ]
    lines = [
        f"{title if number == 0 else '':8}{line}" for title, some in rows for number, line in enumerate(some)
    ]
    return "\n".join([result.name, *lines])


def metrics_line(evaluation: Evaluation) -> str:
    """`accuracy 0.774, balanced 0.771, ... on 1000 images`."""
    shown = SHOWN_OF_FLAGS if evaluation.by_class else SHOWN
    if not evaluation.by_class and len(evaluation.confusion) != 2:
        shown = {name: words for name, words in shown.items() if name != "roc_auc"}
    named = (f"{shown[name]} {value:.3f}" for name, value in evaluation.metrics.items() if name in shown)
    return f"{', '.join(named)} on {evaluation.count} images"


def _shift_lines(sites: Sequence[SiteRecord]) -> list[str]:
    if not sites:
        return ["no BN sites"]
    largest = max(sites, key=lambda site: site.shift_mean)
    mean = sum(site.shift_mean for site in sites) / len(sites)
    said = f"{len(sites)} sites moved by {mean:.2f} sd on average"
    if largest.shift_mean == 0:
        return [said]
    return [
        f"{said}, most {largest.path} by {largest.shift_mean:.2f}",
        f"{profile([site.shift_mean for site in sites])}  by depth",
    ]


def as_plain(result: RunResult) -> dict[str, Any]:
    """Every field of a result as JSON can hold it, and whether the policy is verified."""
    plain = dataclasses.asdict(result)
    return plain | {"folder": str(result.folder), "verified": result.verified}
