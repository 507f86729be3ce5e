"""`finetune cp`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def cp(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Of a shipped recipe: `finetune list recipes`.")
    ],
    target: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="NAME.yaml in this folder if left out.")
    ] = None,
) -> None:
    """Copy a shipped recipe, to change it.

    \b
    finetune cp resnet_freeze
    finetune cp resnet_freeze mine.yaml
    """
    from finetune.shipped import copy_recipe

    file = target or Path(f"{name.removesuffix('.yaml')}.yaml")
    copy_recipe(name, file)
    typer.echo(f"recipe  {file}\nnext    finetune run {file}")
