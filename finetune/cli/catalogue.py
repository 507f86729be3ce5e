"""`finetune list`: what a recipe can name."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from finetune.cli.backbone_table import print_backbones
from finetune.cli.options import AsJson
from finetune.errors import InputError

Row = Mapping[str, Any]

MANY = 20
"""Choices that are not printed between the keys: those of backbones stand in their table."""


class Kind(StrEnum):
    """What there are lists of."""

    policies = "policies"
    backbones = "backbones"
    datasets = "datasets"
    recipes = "recipes"


def list_(
    kind: Annotated[Kind, typer.Argument(help="Of what.")],
    folder: Annotated[
        Path | None, typer.Option(help="Where recipes are looked for; those that are shipped if left out.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of backbones: those of one source only.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List what a recipe can name, with the keys.

    \b
    finetune list policies
    finetune list backbones --source keras_cv
    finetune list backbones --json
    finetune list recipes --folder recipes
    """
    from finetune.shipped import shipped_folder

    place = folder or shipped_folder()
    rows = _recipes(place) if kind is Kind.recipes else [_component(member) for member in _members(kind)]
    if kind is Kind.backbones:
        rows = _of_source(rows, source)
    if as_json:
        import json

        typer.echo(json.dumps(rows, indent=2))
    elif rows:
        _print_table(rows)
        if kind is Kind.backbones:
            print_backbones({row["name"]: row["networks"] for row in rows if row.get("networks")})
    else:
        typer.echo(f"no recipes in {place}; --folder names another place", err=True)


def _of_source(rows: Iterable[Row], source: str | None) -> list[Row]:
    """Those of one source, or all; each with what is known of its networks."""
    from finetune.backbones.facts import facts

    known = facts()
    found: list[Row] = [
        {**row, "networks": known.get(row["name"], {})} for row in rows if source in (None, row["name"])
    ]
    if not found:
        names = ", ".join(row["name"] for row in rows)
        raise InputError([f"--source {source}: no such source of backbones; expected one of {names}"])
    return found


def _members(kind: Kind) -> Sequence[Any]:
    from finetune.backbones import BACKBONES
    from finetune.datasets import DATASETS
    from finetune.policies import POLICIES

    return {Kind.policies: POLICIES, Kind.backbones: BACKBONES, Kind.datasets: DATASETS}[kind]


def _component(member: Any) -> Row:
    fields = dict(member.model_fields)
    told_apart_by = next(fields.pop(key) for key in ("policy", "source") if key in fields)
    keys = {field.alias or name: _key(field) for name, field in fields.items()}
    if hasattr(member, "names") and member.names():
        keys["name"] = {**keys["name"], "choices": member.names()}
    what = inspect.cleandoc(member.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
    return {"name": get_args(told_apart_by.annotation)[0], "what": what, "keys": keys}


def _key(field: Any) -> Row:
    row: dict[str, Any] = {"required": field.is_required()}
    if not field.is_required():
        default = field.get_default(call_default_factory=True)
        row["default"] = list(default) if isinstance(default, tuple) else default
    if get_origin(field.annotation) is Literal:
        row["choices"] = list(get_args(field.annotation))
    return row | ({"what": field.description} if field.description else {})


def _recipes(folder: Path) -> list[Row]:
    from finetune.cli.recipes import in_brief
    from finetune.errors import RecipeError
    from finetune.recipe_file import load_recipe

    rows: list[Row] = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            what = in_brief(load_recipe(path))
        except RecipeError:
            what = f"cannot be read: finetune check {path}"
        rows.append({"name": str(path), "what": what})
    return rows


def _print_table(rows: Iterable[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0))
    table.add_column("name", no_wrap=True)
    table.add_column("what it is and which keys it takes")
    for row in rows:
        lines = [row["what"], *(_in_words(key, about) for key, about in row.get("keys", {}).items())]
        table.add_row(row["name"], "\n".join(lines))
    Console(highlight=False, markup=False).print(table)


def _in_words(key: str, about: Row) -> str:
    named = about.get("choices", ())
    choices = f"the {len(named)} below" if len(named) > MANY else ", ".join(map(str, named))
    value = "required" if about["required"] else _as_in_yaml(about["default"])
    return (
        f"  {key}: {value}"
        + (f" (of {choices})" if choices else "")
        + f"; {about.get('what', '')}".rstrip("; ")
    )


def _as_in_yaml(default: Any) -> str:
    if default is None:
        return "null"
    return str(default).lower() if isinstance(default, bool) else str(default)
