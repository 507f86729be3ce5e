"""The story of a comparison: check all cells, train what is planned, sum up, write, track."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.comparison.comparison import Comparison, summed_up
from finetune.comparison.grid import Cell, Grid
from finetune.comparison.journal import Journal
from finetune.comparison.outcome import Metric, Outcome
from finetune.comparison.page import render
from finetune.comparison.parent_run import earlier_parent, remember_parent
from finetune.comparison.plan import Plan
from finetune.comparison.ray_cluster import RayCluster
from finetune.comparison.tables import plain, write_recommended
from finetune.comparison.workers import Workers
from finetune.progress import Progress
from finetune.recipe import Tracking, resolved
from finetune.recipe_file import load_recipe
from finetune.run_folder import clear_output_errors
from finetune.tracking import store_uri
from finetune.tracking.family import Family, open_family
from finetune.whole_file import write_whole

Crew = Workers | RayCluster
"""Who trains the cells."""


@dataclass(frozen=True)
class Compared:
    """comparison: what was found out. recommended: by setting, the recipe to run. page: the HTML. trained: cells that
    were trained now; known: those that an earlier sitting had finished."""

    comparison: Comparison
    recommended: dict[str, Path]
    page: Path
    trained: int
    known: int
    seconds: float


def compare(
    grid: Grid,
    out: Path,
    *,
    jobs: int = 1,
    on_ray: bool = False,
    metric: Metric = "accuracy",
    tracking_uri: str | None = None,
    progress: Progress | None = None,
    prepare: Callable[[], None] | None = None,
) -> Compared:
    """Train every cell that the folder does not hold yet, and compare the policies.

    jobs: processes on this machine. on_ray: on a Ray cluster instead. metric: what is
    compared. prepare: runs first in each process. Raises
    InputError before anything is trained where a cell cannot be carried out or there is no cluster, OutputError for the
    folder, FinetuneError where a process is killed; what was finished stays in the folder, and the same command goes on
    there.
    """
    progress, begun = progress or Progress(), time.perf_counter()
    grid.check()
    plan, tracking = Plan(grid), load_recipe(grid.path, grid.fixed).tracking
    crew: Crew = RayCluster(prepare) if on_ray else Workers(jobs, prepare)
    with clear_output_errors(out), Journal(out) as journal, crew as workers:
        known = len(journal.known)
        progress.phase(f"{compared(grid)}, {known} cells finished earlier, in {out}")
        progress.phase(planned(grid, plan.most()))
        train_all(plan, journal, workers, progress, metric)
        trained, cells = len(journal.known) - known, plan.table(journal.known)
        comparison = summed_up(grid.path.stem, cells, journal.known, metric)
        recommended = write_recommended(comparison, grid, out)
        page = write_files(comparison, recommended, out)
        with family_of(grid, tracking, tracking_uri, out, progress) as family:
            track(family, cells, journal.known, comparison, page)
    return Compared(comparison, recommended, page, trained, known, time.perf_counter() - begun)


def planned(grid: Grid, most: int) -> str:
    """What is to be done for each line of the table, and how many cells that makes."""
    if len(grid.rates) < 2:
        return f"{grid.seeds} seeds of each: {most} cells"
    return (
        f"each at its own learning rate: {len(grid.rates)} on the first seed, of which the lowest is taken whose "
        f"validation loss is near the best; then {grid.seeds} seeds: {most} cells"
    )


def train_all(plan: Plan, journal: Journal, workers: Crew, progress: Progress, metric: Metric) -> None:
    """What is planned and not known yet; each cell is in the journal as soon as it is finished."""
    for cell, outcome in workers.train(lambda: plan.due(journal.known)):
        journal.add(cell.key, cell.words, outcome)
        number = len(journal.known)
        # more where a rate was given up
        most = max(plan.most(), number)
        progress.phase(f"  {number}/{most} {cell.words}: {in_words(outcome, metric)}")
        progress.share(number / most)


def in_words(outcome: Outcome, metric: Metric) -> str:
    if outcome.failed:
        return f"failed: {outcome.failed}"
    test, validation = outcome.score(metric), outcome.validation_score(metric)
    return f"{metric.replace('_', ' ')} test {test:.3f}, validation {validation:.3f}, {outcome.seconds:.0f} s"


def compared(grid: Grid) -> str:
    """`3 policies`, `3 policies under 2 settings`."""
    settings = len({arm.setting for arm in grid.arms()})
    policies = f"{len(grid.policies)} {'policy' if len(grid.policies) == 1 else 'policies'}"
    return policies if settings == 1 else f"{policies} under {settings} settings"


def write_files(comparison: Comparison, recommended: dict[str, Path], out: Path) -> Path:
    """comparison.json and compare.html; returns the page."""
    text = json.dumps(plain(comparison), indent=2) + "\n"
    write_whole(out / "comparison.json", text)
    page = out / "compare.html"
    write_whole(page, render(comparison, recommended))
    return page


@contextmanager
def family_of(
    grid: Grid, tracking: Tracking, uri: str | None, out: Path, progress: Progress
) -> Iterator[Family]:
    """The one that an earlier sitting made in this folder, where it compared the same."""
    store = store_uri(uri or tracking.uri) if tracking.enabled else None
    params = {
        "policies": list(grid.policies),
        "varied": [list(some) for some in grid.varied],
        "learning_rates": list(grid.rates),
        "seeds": grid.seeds,
    }
    earlier, name = earlier_parent(out, store, params), f"compare {grid.path.stem}"
    with open_family(store, tracking.experiment, name, params, progress.note, earlier) as family:
        if family.parent.run_id:
            remember_parent(out, store, params, family.parent.run_id)
        yield family


def track(
    family: Family,
    cells: Sequence[Cell],
    outcomes: dict[str, Outcome],
    comparison: Comparison,
    page: Path,
) -> None:
    """A child run for each cell of the table; means, spreads and the page with the parent."""
    for cell in cells:
        outcome = outcomes[cell.key]
        metrics = {f"test/{name}": value for name, value in outcome.metrics.items()}
        tags = {"bn.policy": cell.arm.policy, "bn.verified": str(outcome.verified).lower()}
        if outcome.failed:
            tags["failed"] = outcome.failed
        name = " ".join(filter(None, (cell.arm.name, cell.arm.setting, f"seed {cell.seed}")))
        family.add(cell.key, name, params_of(cell), tags, metrics)
    # MLflow draws what is not folded away, and children are
    family.parent.log_final(
        {
            f"{kind}/{name}": value
            for line in comparison.lines
            for name in [" ".join([line.arm.name, line.arm.setting]).strip().replace("=", " ")]
            for kind, value in (("mean", line.mean), ("spread", line.spread))
            if math.isfinite(value)
        }
    )
    family.parent.log_file(page)


def params_of(cell: Cell) -> dict[str, Any]:
    """Its recipe, and which line of the table it belongs to."""
    return resolved(cell.recipe) | {"arm": {"name": cell.arm.name, "setting": cell.arm.setting or "-"}}
