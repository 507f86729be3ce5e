"""`finetune data`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetune.cli.options import AsJson, RecipeFile, Set
from finetune.cli.quiet import import_quietly
from finetune.cli.watching import progress_for

if TYPE_CHECKING:
    from finetune.datasheet.look import DataLook

LISTED = 12
"""Classes, at most; the page has all."""


def data(
    recipe: RecipeFile,
    set_: Set = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page with the pictures as they are trained on."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show the result only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at the data of a recipe before training on them.

    Counts by class and split, images that are in two splits or have two
    labels, and what reaches the backbone and its first BN site.

    \b
    finetune data recipes/resnet_freeze.yaml
    finetune data recipes/resnet_freeze.yaml --html data.html
    finetune data recipes/resnet_freeze.yaml --set data.shift.kind=invert --json
    """
    from finetune.recipe_file import load_recipe

    loaded = load_recipe(recipe, set_ or [])
    progress = progress_for(quiet)
    progress.phase("importing TensorFlow")
    import_quietly()
    from finetune.data_run import look_at_data

    look = look_at_data(loaded, html, progress)
    typer.echo(json.dumps(as_plain(look), indent=2) if as_json else summary(look, html))


def summary(look: DataLook, html: Path | None) -> str:
    from finetune.report.formatting import number

    train = look.readings[0]
    width = max(len(name) for name in look.class_names[:LISTED])
    most = max(train.counts) or 1
    rows = [
        f"  {name:{width}}  {'█' * max(round(24 * count / most), 1 if count else 0):24}  {count}"
        for name, count in list(zip(look.class_names, train.counts, strict=True))[:LISTED]
    ]
    if len(look.class_names) > LISTED:
        rows.append(f"  ... and {len(look.class_names) - LISTED} more classes")
    reaches = look.reaches
    lines = [
        f"{look.name}: {len(look.class_names)} classes at {look.image_size} px",
        *(f"{reading.name:12}{reading.total:>7}  {reading.description}" for reading in look.readings),
        *([f"images      {look.originals.words}"] if look.originals else []),
        "train by class",
        *rows,
        f"backbone    gets {number(reaches.lowest)} to {number(reaches.highest)}, means "
        + ", ".join(number(value) for value in reaches.mean),
    ]
    if reaches.first_site:
        lines.append(f"first site  {reaches.first_site}: {number(reaches.apart)} sd from what it stores")
    lines += [f"note: {words}" for words in look.notes]
    lines += [f"! {words}" for words in look.concerns] or [
        "✓ no image is in two splits, every class is in every split"
    ]
    if html:
        lines.append(f"pictures    {html}")
    return "\n".join(lines)


def as_plain(look: DataLook) -> dict[str, Any]:
    """Without what only the page and the comparison of images need."""
    return {
        "name": look.name,
        "class_names": list(look.class_names),
        "image_size": look.image_size,
        "licence": look.licence,
        "originals": None if look.originals is None else vars(look.originals),
        "splits": {
            reading.name: {
                "description": reading.description,
                "images": reading.total,
                "counts": list(reading.counts),
                "mean": list(reading.mean),
                "spread": list(reading.spread),
            }
            for reading in look.readings
        },
        "repeated": [
            {"splits": list(each.splits), "images": each.images, "contradicted": each.contradicted}
            for each in look.repeated
        ],
        "backbone_input": vars(look.reaches),
        "notes": list(look.notes),
        "concerns": list(look.concerns),
    }
