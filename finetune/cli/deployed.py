"""`finetune recalibrate`, `finetune drift`, `finetune history` and `finetune rollback`: models in service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetune.cli.options import AsJson
from finetune.cli.quiet import import_quietly
from finetune.cli.watching import progress_for

if TYPE_CHECKING:
    from finetune.recalibration.settings import ImageSource

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A SavedModel, .keras, .h5 or .onnx file, or a folder of numbered versions."
    ),
]
Place = Annotated[Path, typer.Argument(metavar="MODEL_DIR", help="A folder of numbered versions.")]
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
    """
    from finetune.cli.sizes import bytes_in

    source = _source(images, recipe, tfds)
    budget = bytes_in(memory)
    told = _told(image_size, scale, channel_order, layout)
    progress = progress_for(quiet)
    progress.phase("importing TensorFlow")
    import_quietly()
    from finetune.cli.deployed_summary import plain_values, recalibrated_lines
    from finetune.recalibration.settings import Settings
    from finetune.recalibration_run import recalibrate as carry_out

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
    done = carry_out(model, source, out, settings, progress=progress, dry=dry_run)
    typer.echo(json.dumps(plain_values(done), indent=2) if as_json else "\n".join(recalibrated_lines(done)))


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
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """How far what a deployed model sees has moved. Changes nothing.

    Exit code 3: further than --threshold, in standard deviations.

    \b
    finetune drift models/shirts --images today/
    finetune drift models/shirts --images today/ --threshold 0.3 --json
    """
    source = _source(images, recipe, tfds)
    told = _told(image_size, scale, channel_order, layout)
    progress = progress_for(quiet)
    progress.phase("importing TensorFlow")
    import_quietly()
    from finetune.cli.deployed_summary import drift_lines, drift_values
    from finetune.drift_run import drift as measure
    from finetune.recalibration.settings import Settings

    settings = Settings(samples=samples, seed=seed, told=told, signature=signature, trust=trust)
    found = measure(model, source, settings, progress)
    typer.echo(
        json.dumps(drift_values(found, threshold), indent=2)
        if as_json
        else "\n".join(drift_lines(found, threshold))
    )
    if threshold is not None and not found.overall <= threshold:
        raise typer.Exit(3)


def history(place: Place, as_json: AsJson = False) -> None:
    """Every version of a deployed model, and how it came to be.

    \b
    finetune history models/shirts
    """
    from finetune.recalibration.history import history as versions_of

    found = versions_of(place)
    if as_json:
        rows = [
            {
                "version": each.number,
                "lineage": each.lineage and each.lineage.model_dump(mode="json"),
                "problem": each.problem,
            }
            for each in found
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    for number, each in enumerate(found):
        typer.echo(f"{each.number:>4}  {each.story}{'  (served)' if number == 0 else ''}")


def rollback(
    place: Place,
    reason: Annotated[str, typer.Option(metavar="WORDS", help="Recorded with the new version.")] = "",
) -> None:
    """Publish what was served before, as the newest version. Deletes nothing.

    \b
    finetune rollback models/shirts --reason "worse on the night shift"
    """
    from finetune.recalibration.history import rollback as go_back

    typer.echo(f"{go_back(place, reason)}: serves what was served before")


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
