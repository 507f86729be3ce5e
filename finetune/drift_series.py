"""The drift of a model in service as a time series in MLflow: one run a model, a step each time it is looked at."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from finetune.drift_run import Drift
from finetune.drift_run import drift as measure_drift
from finetune.progress import Progress
from finetune.recalibration.settings import ImageSource, Settings
from finetune.registered_run import downloaded
from finetune.tracking import open_run, store_uri
from finetune.tracking.address import is_address
from finetune.tracking.registry import open_registry

EXPERIMENT = "drift"


def drift(
    model: str,
    images: ImageSource,
    settings: Settings | None = None,
    progress: Progress | None = None,
    *,
    store: str | None = None,
) -> Drift:
    """Measure how far what a model sees has moved, a registered one or a file, and log it to MLflow.

    A store that fails when it comes to logging costs a note, never the answer.
    """
    progress = progress or Progress()
    if is_address(model):
        with TemporaryDirectory() as temporary, open_registry(store_uri(store)) as registry:
            found = registry.find(model)
            with downloaded(registry, found, Path(temporary)) as (_, path):
                seen = dataclasses.replace(
                    measure_drift(str(path), images, settings, progress), address=model
                )
        log_drift(seen, model, found.pinned, store_uri(store), progress)
        return seen
    seen = measure_drift(model, images, settings, progress)
    series = str(Path(model).resolve())
    log_drift(seen, series, series, store_uri(store), progress)
    return seen


def log_drift(seen: Drift, series: str, version: str, store: str, progress: Progress) -> None:
    """A step more of the model's time series, and a run of its own with the shift by depth.

    series: one for each model, also when it is recalibrated: the drift is seen to fall then.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    params = {"model": series, "version": version, "against": seen.against, "images": seen.images}
    shifts = list(seen.shifts.values())
    overall = {"drift/overall": seen.overall, "drift/worst": seen.shifts[seen.worst].mean}
    with open_run(store, EXPERIMENT, now, params, {}, progress.note) as tracking:
        tracking.log_final(overall)
        for measure in ("mean", "log_std", "kl"):
            tracking.log_profile(f"bn_depth/{measure}", [getattr(each, measure) for each in shifts])
        tracking.continue_series(series, overall)
