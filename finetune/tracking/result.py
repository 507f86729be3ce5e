"""A finished run in MLflow, under names that read well there.

The UI makes one section of charts of all metrics with the same prefix up to the last "/". So the shift
by depth is one curve a measure with the site as its step, and what is known of every single site is a
table: a metric a site would give a ResNet-50 53 sections that nobody reads.
"""

from __future__ import annotations

from dataclasses import asdict
from statistics import fmean

from finetune.result import Check, RunResult, SiteRecord
from finetune.run_state import STATE
from finetune.tracking.run import Tracker

SHIFT_MEASURES = {"mean": "shift_mean", "log_std": "shift_log_std", "kl": "shift_kl"}

SMALL_FILES = {".yaml", ".json", ".jsonl", ".html", ".md"}


def log_result(tracking: Tracker, result: RunResult) -> None:
    """Log everything but the epochs, which `log_epoch` took as they came, and the model."""
    tracking.log_final({f"test/{name}": value for name, value in result.test.metrics.items()})
    tracking.log_final({f"seconds/{name}": value for name, value in result.seconds.items()})
    if result.sites:
        _log_shift(tracking, result)
    _log_confusion(tracking, result)
    tracking.log_table([_check_row(check) for check in result.checks], "proof.json")
    tracking.set_tags({"bn.verified": str(result.verified).lower(), "mlflow.note.content": summary(result)})
    for path in sorted(result.folder.iterdir()):
        if path.suffix in SMALL_FILES and path.name != STATE:
            tracking.log_file(path)


def summary(result: RunResult) -> str:
    """What the run page says first, in Markdown."""
    held = sum(check.passed for check in result.checks)
    metrics = ", ".join(
        f"{name.replace('_', ' ')} {value:.3f}" for name, value in result.test.metrics.items()
    )
    verified = "verified" if result.verified else "**not verified**"
    lines = [
        f"BN policy **{result.policy}**, {verified}: {held} of {len(result.checks)} checks held.",
        f"Test, {result.test.count} images: {metrics}.",
    ]
    failed = [f"- failed: {check.name}: {check.detail}" for check in result.checks if not check.passed]
    return "\n\n".join([*lines, *failed, *[f"- {note}" for note in result.notes]])


def _log_shift(tracking: Tracker, result: RunResult) -> None:
    last = result.epochs[-1].step if result.epochs else 0
    for measure, field in SHIFT_MEASURES.items():
        values = [getattr(site, field) for site in result.sites]
        # once more at the last epoch: a policy may measure anew after training
        tracking.log_epoch(last, {f"bn_shift/{measure}": fmean(values)})
        tracking.log_profile(f"bn_depth/{measure}", values)
    tracking.log_table([_site_row(site) for site in result.sites], "bn_sites.json")


def _log_confusion(tracking: Tracker, result: RunResult) -> None:
    names = result.class_names
    if result.test.by_class:
        by_class = zip(names, result.test.by_class, strict=True)
        tracking.log_table([{"class": name, **asdict(counts)} for name, counts in by_class], "classes.json")
    rows = [
        {"true": names[true], "predicted": names[predicted], "images": images}
        for true, row in enumerate(result.test.confusion)
        for predicted, images in enumerate(row)
        if images
    ]
    if rows:
        tracking.log_table(rows, "confusion.json")


def _site_row(site: SiteRecord) -> dict[str, object]:
    """The shift first: the UI shows six columns of a table at a time."""
    values = asdict(site)
    first = ("index", "path", *SHIFT_MEASURES.values())
    return {key: values.pop(key) for key in first} | values


def _check_row(check: Check) -> dict[str, str]:
    return {"check": check.name, "held": "yes" if check.passed else "NO", "evidence": check.detail}
