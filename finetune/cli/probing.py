"""`finetune probe`."""

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
    from finetune.baselines import Probed


def probe(
    recipe: RecipeFile,
    set_: Set = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show the result only.")] = False,
    as_json: AsJson = False,
) -> None:
    """See what the backbone's features are worth before anything is trained.

    A linear probe and the nearest neighbours, under the statistics that the
    backbone brings and under statistics measured on the calibration images.
    What measuring gains here, a frozen backbone loses.

    \b
    finetune probe recipes/resnet_freeze.yaml
    finetune probe photos.yaml --set data.examples_per_class=10
    finetune probe recipes/resnet_freeze.yaml --set data.shift.kind=contrast --json
    """
    from finetune.recipe_file import load_recipe

    loaded = load_recipe(recipe, set_ or [])
    progress = progress_for(quiet)
    progress.phase("importing TensorFlow")
    import_quietly()
    from finetune.probe_run import probe_features

    found = probe_features(loaded, progress=progress)
    typer.echo(json.dumps(plain(found), indent=2) if as_json else summary(found, recipe))


def summary(found: Mapping[str, Probed], recipe: Path) -> str:
    any_one = next(iter(found.values()))
    lines = [
        f"test accuracy on {any_one.linear.count} images, balanced in brackets",
        f"{'statistics':14}  {'linear probe':>15}  {f'{any_one.neighbours} nearest':>15}",
    ]
    for statistics, probed in found.items():
        cells = (
            f"{each.metrics['accuracy']:.3f} ({each.metrics['balanced_accuracy']:.3f})"
            for each in (probed.linear, probed.nearest)
        )
        lines.append(f"{statistics:14}  " + "  ".join(f"{cell:>15}" for cell in cells))
    lines.append(f"next    finetune compare {recipe} --policies freeze,recalibrate,retrain")
    return "\n".join(lines)


def plain(found: Mapping[str, Probed]) -> dict[str, object]:
    return {
        statistics: {
            "linear": dict(probed.linear.metrics),
            "nearest": dict(probed.nearest.metrics),
            "strength": probed.strength,
            "neighbours": probed.neighbours,
            "images": probed.linear.count,
        }
        for statistics, probed in found.items()
    }
