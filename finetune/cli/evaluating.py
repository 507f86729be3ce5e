"""`finetune evaluate`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from finetune.cli.options import AsJson, Set
from finetune.cli.quiet import import_quietly


def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A run folder or a .keras file.")],
    recipe: Annotated[
        Path | None, typer.Option(metavar="RECIPE", help="Whose data; the one in the run folder if left out.")
    ] = None,
    set_: Set = None,
    views: Annotated[
        int, typer.Option(min=1, help="Of each image, drawn by the recipe's augmentation, and averaged.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Measure a fine-tuned model on a test split.

    The split is that of a recipe, as it is or under a changed camera.

    \b
    finetune evaluate runs/resnet_freeze-1
    finetune evaluate runs/resnet_freeze-1 --set data.shift.kind=contrast
    finetune evaluate runs/resnet_freeze-1 --views 5 --set "data.augment=[{layer: RandomFlip}]"
    finetune evaluate model.keras --recipe recipes/resnet_freeze.yaml --json
    """
    import_quietly(any_backend=True)
    from finetune.evaluation_run import evaluate_saved

    evaluation = evaluate_saved(model, recipe=recipe, overrides=set_ or [], views=views)
    from finetune.cli.summary import metrics_line

    plain = {
        "metrics": dict(evaluation.metrics),
        "count": evaluation.count,
        "confusion": evaluation.confusion,
        "by_class": [dataclasses.asdict(counts) for counts in evaluation.by_class],
    }
    typer.echo(json.dumps(plain, indent=2) if as_json else metrics_line(evaluation))
