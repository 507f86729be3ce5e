"""`finetune compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.cli.options import AsJson, RecipeFile, TrackingUri
from finetune.cli.quiet import import_quietly
from finetune.cli.watching import progress_for
from finetune.comparison.outcome import Metric
from finetune.errors import InputError

if TYPE_CHECKING:
    from finetune.compare_run import Compared

POLICIES = "freeze,recalibrate,retrain,affine"
RATES = "0.003,0.01,0.03"


def compare(
    recipe: RecipeFile,
    policies: Annotated[str, typer.Option(metavar="P,P,...", help="BN policies.")] = POLICIES,
    seeds: Annotated[int, typer.Option(help="Trainings of each policy.")] = 5,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=A,B,...", help="Change a value; several values are compared. Repeatable."
        ),
    ] = None,
    learning_rates: Annotated[
        str,
        typer.Option(
            metavar="R,R,...", help="Of the last stage, tried on the first seed; none: the recipe's."
        ),
    ] = RATES,
    metric: Annotated[
        Metric, typer.Option(help="What is compared; balanced counts every class alike.")
    ] = "accuracy",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="comparisons/RECIPE if left out; go on there.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes that train side by side.")] = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="On a Ray cluster: RAY_ADDRESS, or the one on this machine.")
    ] = False,
    tracking_uri: TrackingUri = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show the table only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a recipe under several BN policies, and say which is best and how sure that is.

    Each policy gets its own learning rate, chosen on validation. Broken off, the
    same command goes on where it was.

    \b
    finetune compare recipes/resnet_freeze.yaml
    finetune compare recipes/resnet_freeze.yaml --policies freeze,retrain --seeds 3 --jobs 2
    finetune compare recipes/resnet_retrain.yaml --policies retrain --set batchnorm.momentum=0.9,0.99
    finetune compare recipes/resnet_freeze.yaml --set data.shift.kind=fog,contrast --json
    RAY_ADDRESS=ray://head:10001 finetune compare recipes/resnet_freeze.yaml --ray
    """
    from finetune.comparison.arms import alternatives
    from finetune.comparison.grid import Grid

    varied, fixed = alternatives(set_ or [])
    rates = () if learning_rates == "none" else _numbers("--learning-rates", learning_rates)
    grid = Grid(recipe, tuple(policies.split(",")), varied, fixed, rates, seeds)
    if ray and jobs:
        raise InputError(
            f"--jobs {jobs}: leave it out with --ray, which trains as many cells as the cluster has CPUs"
        )
    grid.check()
    from finetune.compare_run import compare as carry_out

    done = carry_out(
        grid,
        out or Path("comparisons") / recipe.stem,
        jobs=jobs or 1,
        on_ray=ray,
        metric=metric,
        tracking_uri=tracking_uri,
        progress=progress_for(quiet),
        prepare=import_quietly,
    )
    from finetune.comparison.tables import plain

    typer.echo(json.dumps(plain(done.comparison), indent=2) if as_json else in_words(done))


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in text.split(","))
    except ValueError as error:
        raise InputError(f"{option}: expected numbers between commas, as in {RATES}, got {text!r}") from error


def in_words(done: Compared) -> str:
    """The table, the verdicts, what failed, and what to type next."""
    from rich.console import Console
    from rich.table import Table

    from finetune.comparison.tables import table as table_of

    headings, rows = table_of(done.comparison)
    table = Table(*headings, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console = Console(width=110)
    with console.capture() as captured:
        console.print(table)
    verdicts = [
        f"{setting + ': ' if setting else ''}{verdict.words}"
        for setting, some in done.comparison.verdicts.items()
        for verdict in some
    ]
    failed = [f"failed: {words}" for words in done.comparison.failed]
    after = [
        f"page    {done.page}",
        f"took    {done.seconds:.0f} s, {done.trained} cells trained, {done.known} known from before",
        *(f"next    finetune run {path}" for path in done.recommended.values()),
    ]
    return "\n".join([captured.get().rstrip(), "", *verdicts, *failed, "", *after])
