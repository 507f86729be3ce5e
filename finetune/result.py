"""What a run found out, as plain values: everything that MLflow, the report and `--json` show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Check:
    """One promise after the fact: `name` in words, whether it held, and the evidence."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class EpochRecord:
    """One epoch; `step` counts epochs over all stages from 1, `metrics` are named as in MLflow."""

    stage: int
    epoch: int
    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class SiteRecord:
    """One BN site at the end of a run.

    index: position in call order, from 0. positions: batch x height x width behind one channel in a
    training batch. shift_mean (in earlier standard deviations), shift_log_std, shift_kl: mean over
    channels of the move from the pretrained to the final running statistics.
    """

    index: int
    path: str
    channels: int
    momentum: float
    epsilon: float
    positions: int
    shift_mean: float
    shift_log_std: float
    shift_kl: float


@dataclass(frozen=True)
class ClassCounts:
    """One class of multi-label images. found, missed: images that show it and were, or were not, said to. false: images
    that do not, and were said to."""

    found: int
    missed: int
    false: int

    @property
    def images(self) -> int:
        return self.found + self.missed

    @property
    def recall(self) -> float:
        """NaN where no image shows it."""
        return self.found / self.images if self.images else math.nan

    @property
    def precision(self) -> float:
        """NaN where it was said of no image."""
        said = self.found + self.false
        return self.found / said if said else math.nan


@dataclass(frozen=True)
class Evaluation:
    """A model on labelled images. `metrics`: by the names in finetune.report.definitions.

    confusion: counts, rows true, columns predicted; empty for multi-label images, which have `by_class` instead."""

    metrics: Mapping[str, float]
    confusion: tuple[tuple[int, ...], ...]
    count: int
    by_class: tuple[ClassCounts, ...] = ()


@dataclass(frozen=True)
class RunResult:
    """A finished run. `recipe` is the resolved recipe; `dataset` describes each split in words."""

    name: str
    folder: Path
    recipe: Mapping[str, Any]
    policy: str
    class_names: tuple[str, ...]
    dataset: Mapping[str, str]
    epochs: tuple[EpochRecord, ...]
    sites: tuple[SiteRecord, ...]
    test: Evaluation
    checks: tuple[Check, ...]
    notes: tuple[str, ...]
    seconds: Mapping[str, float]
    provenance: Mapping[str, Any]

    @property
    def verified(self) -> bool:
        return all(check.passed for check in self.checks)
