"""`finetune drift`: how far what a model in service sees has moved."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from finetune.cli.deployed_options import (
    Folder,
    ImageSize,
    Layout,
    Model,
    OfRecipe,
    OfTfds,
    Order,
    Quiet,
    Samples,
    Scale,
    Signature,
    Trust,
    image_source,
    preprocessing_told,
)
from finetune.cli.options import AsJson, TrackingUri
from finetune.cli.quiet import import_quietly
from finetune.cli.watching import progress_for


def drift(
    model: Model,
    images: Folder = None,
    recipe: OfRecipe = None,
    tfds: OfTfds = None,
    threshold: Annotated[
        float | None, typer.Option(metavar="SD", help="Exit with 3 if the overall shift is above it.")
    ] = None,
    samples: Samples = 512,
    seed: Annotated[int, typer.Option(help="Draws the images.")] = 0,
    image_size: ImageSize = None,
    scale: Scale = None,
    channel_order: Order = None,
    layout: Layout = None,
    signature: Signature = None,
    trust: Trust = False,
    tracking_uri: TrackingUri = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """How far what a deployed model sees has moved. Changes nothing.

    Exit code 3: further than --threshold, in standard deviations. Logged to MLflow, as a time series
    of the model in the experiment "drift", where MODEL is there or --tracking-uri is given.

    \b
    finetune drift models/shirts --images today/
    finetune drift models/shirts --images today/ --threshold 0.3 --json
    finetune drift models:/shirts@champion --images today/ --threshold 0.3
    """
    from finetune.tracking.address import is_address

    source = image_source(images, recipe, tfds)
    told = preprocessing_told(image_size, scale, channel_order, layout)
    progress = progress_for(quiet)
    progress.phase("importing TensorFlow")
    import_quietly()
    from finetune.cli.deployed_summary import drift_lines, drift_values
    from finetune.recalibration.settings import Settings

    settings = Settings(samples=samples, seed=seed, told=told, signature=signature, trust=trust)
    if is_address(model) or tracking_uri is not None:
        from finetune.drift_series import drift as measure_and_log

        found = measure_and_log(model, source, settings, progress, store=tracking_uri)
    else:
        from finetune.drift_run import drift as measure

        found = measure(model, source, settings, progress)
    typer.echo(
        json.dumps(drift_values(found, threshold), indent=2)
        if as_json
        else "\n".join(drift_lines(found, threshold))
    )
    if threshold is not None and not found.overall <= threshold:
        raise typer.Exit(3)
