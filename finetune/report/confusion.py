"""Which classes are taken for which: a heat map that stays readable from two classes to hundreds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from finetune.report.figures import STYLE

MOST_CLASSES_WITH_COUNTS = 20
MOST_CLASSES_WITH_NAMES = 120
LONGEST_NAME = 24


@dataclass(frozen=True)
class Confused:
    """`images` of the class `true`, a `share` of it, were taken for `predicted`."""

    true: str
    predicted: str
    images: int
    share: float


def most_confused(
    confusion: Sequence[Sequence[int]], class_names: Sequence[str], most: int = 10
) -> list[Confused]:
    """The pairs of different classes with the most images, most first."""
    pairs = [
        Confused(class_names[true], class_names[predicted], images, images / sum(row))
        for true, row in enumerate(confusion)
        for predicted, images in enumerate(row)
        if images and predicted != true
    ]
    return sorted(pairs, key=lambda pair: -pair.images)[:most]


@matplotlib.rc_context(STYLE)
def confusion_matrix(confusion: Sequence[Sequence[int]], class_names: Sequence[str]) -> Figure:
    """Rows are true classes, columns predicted ones; the colour is the share of the row, the text the count."""
    counts = np.asarray(confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(0.55 * len(counts) + 2, 4.5, 10.5))
    figure = Figure(figsize=(side, 0.88 * side), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="none")
    bar = figure.colorbar(picture, ax=axes, shrink=0.5, pad=0.02)
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    _name_classes(axes, class_names)
    if len(counts) <= MOST_CLASSES_WITH_COUNTS:
        _write_counts(axes, counts, shares)
    return figure


def _name_classes(axes: Axes, class_names: Sequence[str]) -> None:
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if len(class_names) > MOST_CLASSES_WITH_NAMES:
        return
    size = float(np.clip(600 / len(class_names), 5.5, 10))
    names = [n if len(n) <= LONGEST_NAME else n[: LONGEST_NAME - 1] + "…" for n in class_names]
    axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 12 else 45, fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    if len(names) <= 12:
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")


def _write_counts(axes: Axes, counts: np.ndarray, shares: np.ndarray) -> None:
    for true, predicted in np.argwhere(counts):
        axes.text(
            predicted,
            true,
            str(counts[true, predicted]),
            ha="center",
            va="center",
            fontsize=9,
            color="white" if shares[true, predicted] > 0.55 else "#1f2933",
        )
