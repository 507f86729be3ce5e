"""`finetune recalibrate` and `finetune drift`: models in service, files or registered in MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetune.cli.options import AsJson, TrackingUri
from finetune.cli.quiet import import_quietly
from finetune.cli.watching import progress_for

if TYPE_CHECKING:
    from finetune.recalibration.settings import ImageSource

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A SavedModel, .keras, .h5 or .onnx file, a folder of numbered versions, "
        "or in MLflow models:/NAME@ALIAS or runs:/ID/MODEL.",
    ),
]
Folder = Annotated[Path | None, typer.Option("--images", metavar="DIR", help="Pictures of today.")]
OfRecipe = Annotated[
    Path | None, typer.Option("--recipe", metavar="RECIPE", help="Its calibration images instead.")
]
OfTfds = Annotated[str | None, typer.Option("--tfds", metavar="NAME:SPLIT", help="A TFDS dataset's instead.")]
Samples = Annotated[int, typer.Option(help="Images, at most.")]
ImageSize = Annotated[int | None, typer.Option(metavar="PX", help="Side, where the model does not say.")]
Scale = Annotated[
    str | None,
    typer.Option(metavar="SCALE", help="none, unit, -1..1, imagenet or caffe, where the model does not say."),
]
Order = Annotated[
    str | None, typer.Option("--channel-order", metavar="ORDER", help="rgb (default), bgr or grey.")
]
Layout = Annotated[
    str | None, typer.Option(metavar="LAYOUT", help="nhwc or nchw, where the model does not say.")
]
Signature = Annotated[
    str | None, typer.Option(metavar="NAME", help="Of a SavedModel; serving_default if left out.")
]
Trust = Annotated[bool, typer.Option("--trust", help="Run Lambda layers of a Keras file: its author's code.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show the result only.")]


def recalibrate(
    model: Model,
    images: Folder = None,
    recipe: OfRecipe = None,
    tfds: OfTfds = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of versions; the one that MODEL lies in if left out."),
    ] = None,
    method: Annotated[str, typer.Option(metavar="METHOD", help="layerwise or one_pass.")] = "layerwise",
    samples: Samples = 512,
    prior: Annotated[
        float, typer.Option(metavar="N0", help="Images that the earlier statistics count as.")
    ] = 0.0,
    memory: Annotated[str, typer.Option(metavar="SIZE", help="For activations under layerwise.")] = "2GB",
    batch_size: Annotated[int, typer.Option(help="Images a batch.")] = 64,
    seed: Annotated[int, typer.Option(help="Draws the images.")] = 0,
    plain: Annotated[
        bool, typer.Option("--plain", help="Store what is measured, even if a reference is known.")
    ] = False,
    reference_images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Pictures it was trained on: measure a reference.")
    ] = None,
    labelled: Annotated[
        bool, typer.Option("--labelled", help="The images have labels: DIR/class/picture.")
    ] = False,
    tolerance: Annotated[float, typer.Option(help="Fall in accuracy that is accepted.")] = 0.01,
    force: Annotated[
        str | None, typer.Option(metavar="REASON", help="Publish against the gate; recorded.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure and judge, publish nothing.")] = False,
    promote: Annotated[
        bool, typer.Option("--promote", help="In MLflow: let the alias serve the new version.")
    ] = False,
    alias: Annotated[
        str | None,
        typer.Option(metavar="ALIAS", help="That --promote moves; MODEL's own, else champion, if left out."),
    ] = None,
    tracking_uri: TrackingUri = None,
    image_size: ImageSize = None,
    scale: Scale = None,
    channel_order: Order = None,
    layout: Layout = None,
    signature: Signature = None,
    trust: Trust = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Measure a deployed model's statistics on images of today.

    Publishes a new version behind a gate; the live one is never touched.
    Exit code 4: the gate refused, nothing was published.

    \b
    finetune recalibrate models/shirts --images today/
    finetune recalibrate model.onnx --images today/ --out models/shirts --scale imagenet
    finetune recalibrate models/shirts --images checked/ --labelled --dry-run --json
    finetune recalibrate models:/shirts@champion --images today/ --promote
    """
    from finetune.cli.sizes import bytes_in
    from finetune.tracking.address import is_address

    registered = is_address(model)
    _refuse_elsewhere(registered, out, promote, alias, tracking_uri)

    source = _source(images, recipe, tfds)
    budget = bytes_in(memory)
    told = _told(image_size, scale, channel_order, layout)
    progress = progress_for(quiet)
    progress.phase("importing TensorFlow")
    import_quietly()
    from finetune.cli import deployed_summary, registered_summary
    from finetune.recalibration.settings import Settings
    from finetune.recalibration_run import recalibrate as publish
    from finetune.registered_run import recalibrate as register

    settings = Settings(
        method=_one_of("--method", method, ("layerwise", "one_pass")),
        statistics="plain" if plain else "auto",
        samples=samples,
        prior=prior,
        memory=budget,
        batch_size=batch_size,
        seed=seed,
        labelled=labelled,
        tolerance=tolerance,
        reference_images=reference_images,
        force=force,
        told=told,
        signature=signature,
        trust=trust,
    )
    if registered:
        said = registered_summary.registered(
            register(
                model,
                source,
                settings,
                store=tracking_uri,
                promote=promote,
                alias=alias,
                progress=progress,
                dry=dry_run,
            ),
            as_json,
        )
    else:
        said = deployed_summary.recalibrated(
            publish(model, source, out, settings, progress=progress, dry=dry_run), as_json
        )
    typer.echo(said)


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

    source = _source(images, recipe, tfds)
    told = _told(image_size, scale, channel_order, layout)
    progress = progress_for(quiet)
    progress.phase("importing TensorFlow")
    import_quietly()
    from finetune.cli.deployed_summary import drift_lines, drift_values
    from finetune.drift_run import drift as measure
    from finetune.drift_series import drift as measure_and_log
    from finetune.recalibration.settings import Settings

    settings = Settings(samples=samples, seed=seed, told=told, signature=signature, trust=trust)
    if is_address(model) or tracking_uri is not None:
        found = measure_and_log(model, source, settings, progress, store=tracking_uri)
    else:
        found = measure(model, source, settings, progress)
    typer.echo(
        json.dumps(drift_values(found, threshold), indent=2)
        if as_json
        else "\n".join(drift_lines(found, threshold))
    )
    if threshold is not None and not found.overall <= threshold:
        raise typer.Exit(3)


def _refuse_elsewhere(
    registered: bool, out: Path | None, promote: bool, alias: str | None, tracking_uri: str | None
) -> None:
    """What belongs to the other kind of model is refused rather than passed over. Raises InputError."""
    from finetune.errors import InputError

    of_files = {"--out": out is not None}
    of_mlflow = {
        "--promote": promote,
        "--alias": alias is not None,
        "--tracking-uri": tracking_uri is not None,
    }
    wrong, kind = (of_files, "a file or a folder") if registered else (of_mlflow, "a model in MLflow")
    problems = [
        f"{option}: expected MODEL to be {kind} with this option" for option, given in wrong.items() if given
    ]
    if alias is not None and not promote:
        problems.append("--alias: says which alias --promote moves; give --promote too")
    if problems:
        raise InputError(problems)


def _source(images: Path | None, recipe: Path | None, tfds: str | None) -> ImageSource:
    from finetune.recalibration.settings import ImageSource

    return ImageSource(images, recipe, tfds)


def _told(size: int | None, scale: str | None, order: str | None, layout: str | None) -> dict[str, Any]:
    return {"image_size": size, "scale": scale, "order": order, "layout": layout}


def _one_of(option: str, value: str, known: tuple[str, ...]) -> Any:
    from finetune.errors import InputError

    if value not in known:
        raise InputError(f"{option}: expected {' or '.join(known)}, got {value!r}")
    return value
