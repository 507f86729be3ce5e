"""`finetune rates`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.cli.options import AsJson, RecipeFile, Set
from finetune.cli.quiet import import_quietly
from finetune.cli.watching import progress_for

if TYPE_CHECKING:
    from finetune.rate_sweep import RateSweep


def rates(
    recipe: RecipeFile,
    policies: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Of these BN policies; the recipe's own if left out."),
    ] = None,
    stage: Annotated[int | None, typer.Option(min=1, help="Of this stage; the last if left out.")] = None,
    low: Annotated[float, typer.Option(help="The first rate.")] = 1e-5,
    high: Annotated[float, typer.Option(help="The last rate.")] = 10.0,
    steps: Annotated[int, typer.Option(help="Batches.")] = 100,
    set_: Set = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with the curves.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show the result only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find out which learning rates a stage takes, before `compare` tries them.

    Raises the rate batch by batch. Batch statistics take higher rates than
    fixed ones, so every policy has its own.

    \b
    finetune rates recipes/resnet_freeze.yaml
    finetune rates recipes/resnet_freeze.yaml --policies freeze,recalibrate,retrain --html rates.html
    finetune rates recipes/resnet_freeze.yaml --stage 1 --high 100 --json
    """
    from finetune.recipe_file import load_recipe

    chosen = [name.strip() for name in policies.split(",")] if policies else [None]
    loaded = [
        load_recipe(recipe, [*(set_ or []), *([f"batchnorm={{policy: {name}}}"] if name else [])])
        for name in chosen
    ]
    recipes = {each.policy.policy: each for each in loaded}
    progress = progress_for(quiet)
    progress.phase("importing TensorFlow")
    import_quietly()
    from finetune.rates_run import find_rates

    found = find_rates(recipes, stage=stage, low=low, high=high, steps=steps, html=html, progress=progress)
    typer.echo(json.dumps(as_plain(found), indent=2) if as_json else summary(found, recipe, html))


def summary(found: Mapping[str, RateSweep], recipe: Path, html: Path | None) -> str:
    lines = [f"{'policy':12}  {'steepest fall':>13}  {'lowest loss':>11}  {'explodes at':>11}"]
    for name, sweep in found.items():
        steepest = "never falls" if sweep.steepest is None else f"{sweep.steepest:.2g}"
        exploded = "not reached" if sweep.exploded is None else f"{sweep.exploded:.2g}"
        lines.append(f"{name:12}  {steepest:>13}  {sweep.lowest:>11.2g}  {exploded:>11}")
    if html:
        lines.append(f"curves  {html}")
    lines.append(
        f"next    finetune compare {recipe} --policies {','.join(found)} --learning-rates {_around(found)}"
    )
    return "\n".join(lines)


def _around(found: Mapping[str, RateSweep]) -> str:
    """A thirtieth, a tenth and a third of the rate at which the middle one of the policies explodes."""
    ends = sorted(sweep.exploded or sweep.rates[-1] for sweep in found.values())
    return ",".join(f"{ends[len(ends) // 2] / part:.1g}" for part in (30, 10, 3))


def as_plain(found: Mapping[str, RateSweep]) -> dict[str, object]:
    return {
        name: {
            "steepest": sweep.steepest,
            "lowest": sweep.lowest,
            "exploded": sweep.exploded,
            "rates": list(sweep.rates),
            "losses": list(sweep.losses),
        }
        for name, sweep in found.items()
    }
