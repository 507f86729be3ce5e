"""`finetune recalibrate`: models in service, files or registered in MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from finetune.cli.deployed_options import (
    Folder,
    ImageSize,
    Layout,
    Meet,
    Model,
    OfRecipe,
    OfTfds,
    Order,
    Quiet,
    Samples,
    Scale,
    Share,
    Signature,
    StatisticsFile,
    Trust,
    Twin,
    image_source,
    preprocessing_told,
)
from finetune.cli.options import AsJson, TrackingUri
from finetune.cli.quiet import import_quietly
from finetune.cli.watching import progress_for


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
    class_shares: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...", help="Mix of the classes in service, or a JSON file; else all alike."
        ),
    ] = None,
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
    shard: Share = None,
    meet: Meet = None,
    statistics: StatisticsFile = None,
    image_size: ImageSize = None,
    scale: Scale = None,
    channel_order: Order = None,
    layout: Layout = None,
    signature: Signature = None,
    trust: Trust = False,
    twin: Twin = None,
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
    finetune recalibrate models/shirts --images today/ --shard 2/4 --meet /shared/today
    """
    from finetune.cli.class_shares import shares_in
    from finetune.cli.sharing import share_in_words
    from finetune.cli.sizes import bytes_in
    from finetune.errors import InputError
    from finetune.recalibration.shard import shard_in
    from finetune.tracking.address import is_address

    registered = is_address(model)
    _refuse_elsewhere(registered, out, promote, alias, tracking_uri)
    share = None if shard is None else shard_in(shard)
    part = statistics if share is not None else None
    if part is not None and (registered or meet is not None):
        raise InputError("--statistics: expected MODEL to be a file or a folder, and no --meet, with --shard")

    source = image_source(images, recipe, tfds)
    budget = bytes_in(memory)
    shares = None if class_shares is None else shares_in(class_shares)
    told = preprocessing_told(image_size, scale, channel_order, layout)
    progress = progress_for(quiet)
    progress.phase("importing TensorFlow")
    import_quietly()
    from finetune.recalibration.settings import Settings

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
        class_shares=shares,
        force=force,
        told=told,
        signature=signature,
        trust=trust,
        twin=twin,
        shard=share,
        meet=meet,
        merged=statistics if share is None else None,
    )
    if part is not None:
        from finetune.share_run import measure_share

        saved = measure_share(model, source, part, settings, progress)
        said = share_in_words(saved, part, as_json)
    elif registered:
        from finetune.cli.registered_summary import registered as in_words
        from finetune.registered_run import recalibrate as register

        done = register(
            model,
            source,
            settings,
            store=tracking_uri,
            promote=promote,
            alias=alias,
            progress=progress,
            dry=dry_run,
        )
        said = in_words(done, as_json)
    else:
        from finetune.cli.deployed_summary import recalibrated
        from finetune.recalibration_run import recalibrate as publish

        said = recalibrated(publish(model, source, out, settings, progress=progress, dry=dry_run), as_json)
    typer.echo(said)


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


def _one_of(option: str, value: str, known: tuple[str, ...]) -> Any:
    from finetune.errors import InputError

    if value not in known:
        raise InputError(f"{option}: expected {' or '.join(known)}, got {value!r}")
    return value
