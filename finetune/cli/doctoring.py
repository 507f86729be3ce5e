"""`finetune doctor`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.cli.deployed_options import (
    Folder,
    ImageSize,
    Layout,
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
from finetune.errors import InputError, OutputError
from finetune.whole_file import write_whole

if TYPE_CHECKING:
    from finetune.doctor.diagnosis import Diagnosis


def doctor(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|RUN|RECIPE",
            help="A model file or folder, a run folder, a recipe with what it plans, "
            "or in MLflow models:/NAME@ALIAS or runs:/ID/MODEL.",
        ),
    ],
    images: Folder = None,
    recipe: OfRecipe = None,
    tfds: OfTfds = None,
    labelled: Annotated[
        bool, typer.Option("--labelled", help="The images are DIR/CLASS/picture: look at accuracy, too.")
    ] = False,
    reference_images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Images that the model was trained on.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of a training that is planned.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Of a training that is planned.")] = None,
    samples: Samples = 256,
    seed: Annotated[int, typer.Option(help="Draws the images.")] = 0,
    image_size: ImageSize = None,
    scale: Scale = None,
    channel_order: Order = None,
    layout: Layout = None,
    signature: Signature = None,
    trust: Trust = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with pictures.")] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Histograms of every site before and after BN.")
    ] = None,
    sites: Annotated[bool, typer.Option("--sites", help="List every site.")] = False,
    tracking_uri: TrackingUri = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Find what is wrong with the BN sites of a model. Changes nothing.

    Each finding says what was measured, why it matters, and the one line that
    fixes it. Exit code 1: something serious.

    \b
    finetune doctor runs/resnet_freeze-1
    finetune doctor models/shirts --images today/
    finetune doctor model.keras --images test/ --labelled --html doctor.html
    finetune doctor models:/shirts@champion
    finetune doctor recipes/resnet_retrain.yaml
    finetune doctor model.keras --steps 145 --batch-size 4 --json
    """
    source = image_source(images, recipe, tfds) if (images or recipe or tfds) else None
    if subject.endswith((".yaml", ".yml")) and (source or tensorboard):
        raise InputError(
            "a recipe is examined with its own calibration images; leave --images and --tensorboard out"
        )
    if labelled and source is None:
        raise InputError("--labelled: expected images with it, as --images DIR with DIR/CLASS/picture")
    told = preprocessing_told(image_size, scale, channel_order, layout)
    progress = progress_for(quiet)
    progress.phase("importing TensorFlow")
    import_quietly()
    from finetune.cli.doctor_summary import in_words, plain_values
    from finetune.doctor.diagnosis import Plan
    from finetune.doctor_run import doctor as examine
    from finetune.recalibration.settings import Settings

    settings = Settings(
        samples=samples,
        seed=seed,
        labelled=labelled,
        reference_images=reference_images,
        told=told,
        signature=signature,
        trust=trust,
    )
    found = examine(subject, source, settings, Plan(steps, batch_size), progress, tensorboard, tracking_uri)
    if html is not None:
        write_page(found, html)
    typer.echo(json.dumps(plain_values(found), indent=2) if as_json else in_words(found, sites))
    if found.serious:
        raise typer.Exit(1)


def write_page(found: Diagnosis, html: Path) -> None:
    from finetune.doctor.page import render

    try:
        write_whole(html, render(found))
    except OSError as error:
        raise OutputError(f"--html {html}: cannot be written: {error.strerror or error}") from error
