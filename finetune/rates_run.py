"""`finetune rates`: how a stage takes learning rates from far too low to far too high, policy by policy."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune.describe import stage_in_words
from finetune.errors import InputError, OutputError
from finetune.prepared import computing_in, prepare
from finetune.progress import Progress
from finetune.rate_sweep import RateSweep, ramp, sweep_rates
from finetune.recipe import Recipe
from finetune.report.rates import render
from finetune.stopwatch import Stopwatch
from finetune.tracking import Tracker
from finetune.train import fit_stage
from finetune.training import Running, calibration_of, material_of
from finetune.whole_file import write_whole


def find_rates(
    recipes: Mapping[str, Recipe],
    *,
    stage: int | None = None,
    low: float = 1e-5,
    high: float = 10.0,
    steps: int = 100,
    html: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, RateSweep]:
    """By name of the recipe, which differ in their policy. stage: from 1; the last where left out. The stages before it
    are trained first, with their own rates.

    Raises InputError where there is no such stage or a recipe cannot be carried out, OutputError for the page.
    """
    progress = progress or Progress()
    if not 0 < low < high or steps < 20:
        raise InputError(
            f"--low {low:g} --high {high:g} --steps {steps}: expected 0 < low < high and at least 20 steps"
        )
    found = {}
    for name, recipe in recipes.items():
        if recipe.distribute:
            raise InputError(
                f"{name}: distribute: a sweep of rates trains in one process, where batches mean the same; leave it "
                "out with --set distribute=null"
            )
        number = _number(recipe, stage)
        progress.phase(f"{name}: {stage_in_words(number, recipe.stages)}, from {low:g} to {high:g}")
        found[name] = _swept(recipe, number, ramp(low, high, steps), progress)
    if html is not None:
        _write(html, render(found))
    return found


def _number(recipe: Recipe, stage: int | None) -> int:
    last = len(recipe.stages)
    if stage is not None and not 1 <= stage <= last:
        raise InputError(
            f"--stage {stage}: the recipe has {last} stage{'s' * (last > 1)}; expected 1 to {last}"
        )
    return (stage or last) - 1


def _swept(recipe: Recipe, number: int, rates: Sequence[float], progress: Progress) -> RateSweep:
    with computing_in(recipe.precision), tempfile.TemporaryDirectory(prefix="rates-") as folder:
        prepared = prepare(recipe, progress, Stopwatch())
        silent = Tracker(None, lambda words: None)
        running = Running(
            recipe,
            prepared.splits,
            prepared.built,
            prepared.trainee,
            Path(folder),
            silent,
            progress,
            Stopwatch(),
        )
        trainee, policy, material = prepared.trainee, recipe.policy, material_of(running)
        policy.start(trainee.model, trainee.sites, calibration_of(running), progress.note)
        for earlier in range(number):
            title = stage_in_words(earlier, recipe.stages)
            fit_stage(trainee, policy, recipe.stages[earlier], title, material, progress, _unheard)
        return sweep_rates(trainee, policy, recipe.stages[number], material, rates, progress)


def _unheard(epoch: int, metrics: Mapping[str, float]) -> None:
    """Nothing of a sweep is recorded."""


def _write(path: Path, page: str) -> None:
    try:
        write_whole(path, page)
    except OSError as error:
        raise OutputError(
            f"{path}: the page cannot be written ({error.strerror}); choose another place with --html"
        ) from error
