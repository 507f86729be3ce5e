"""`finetune run`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from finetune.cli.options import AsJson, RecipeFile, Set, TrackingUri
from finetune.cli.quiet import import_quietly
from finetune.cli.watching import progress_for


def run(
    recipe: RecipeFile,
    set_: Set = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    name: Annotated[str | None, typer.Option(help="Instead of the recipe's.")] = None,
    runs_dir: Annotated[Path, typer.Option(help="Folder that the run folder is made in.")] = Path("runs"),
    tracking_uri: TrackingUri = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show the summary only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune as a recipe says, and prove its policy.

    Leaves a report, a model and an MLflow run.

    \b
    finetune run recipes/resnet_freeze.yaml
    finetune run recipes/resnet_freeze.yaml --set stages.0.epochs=1 --set data.shift.kind=noise
    finetune run recipes/resnet_retrain.yaml --seed 3 --name third --json > result.json
    """
    from finetune.recipe_file import load_recipe

    extra = [] if seed is None else [f"seed={seed}"]
    # as JSON text, which is YAML as well: a name of digits stays text
    extra += [] if name is None else [f"name={json.dumps(name)}"]
    loaded = load_recipe(recipe, [*(set_ or []), *extra])
    progress = progress_for(quiet)

    # from here on it takes seconds: Keras is imported
    progress.phase("importing TensorFlow")
    import_quietly()
    from finetune.run import run as carry_out

    result = carry_out(loaded, runs_folder=runs_dir, tracking_uri=tracking_uri, progress=progress)
    from finetune.cli.summary import as_plain, summary

    typer.echo(json.dumps(as_plain(result), indent=2) if as_json else summary(result))
