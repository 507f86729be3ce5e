"""`finetune history` and `finetune rollback`: the versions of a model in service, and the way back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetune.cli.options import AsJson, TrackingUri

if TYPE_CHECKING:
    from finetune.tracking.registry import RegisteredVersion

Place = Annotated[
    str, typer.Argument(metavar="MODEL", help="A folder of numbered versions, or models:/NAME in MLflow.")
]


def history(place: Place, tracking_uri: TrackingUri = None, as_json: AsJson = False) -> None:
    """Every version of a deployed model, and how it came to be.

    \b
    finetune history models/shirts
    finetune history models:/shirts --tracking-uri http://localhost:5000
    """
    from finetune.tracking.address import is_address

    rows = _registered(place, tracking_uri) if is_address(place) else _published(Path(place))
    if as_json:
        typer.echo(json.dumps([values for values, _ in rows], indent=2))
        return
    for values, story in rows:
        typer.echo(f"{values['version']:>4}  {story}")


def rollback(
    place: Annotated[
        str, typer.Argument(metavar="MODEL", help="A folder of numbered versions, or models:/NAME@ALIAS.")
    ],
    reason: Annotated[str, typer.Option(metavar="WORDS", help="Recorded with the version.")] = "",
    tracking_uri: TrackingUri = None,
) -> None:
    """Serve again what was served before. Deletes nothing.

    In a folder that is published once more as the newest version; in MLflow the alias goes back to the
    parent of the version that it serves.

    \b
    finetune rollback models/shirts --reason "worse on the night shift"
    finetune rollback models:/shirts@champion
    """
    from finetune.tracking.address import is_address

    if is_address(place):
        from finetune.tracking import store_uri
        from finetune.tracking.registry import open_registry

        with open_registry(store_uri(tracking_uri)) as registry:
            given_up, served = registry.step_back(place, reason)
        typer.echo(f"{place}: serves {served} again, no longer {given_up}")
        return
    from finetune.recalibration.history import rollback as go_back

    typer.echo(f"{go_back(Path(place), reason)}: serves what was served before")


def _published(place: Path) -> list[tuple[dict[str, Any], str]]:
    """Of each version: its values for scripts, and a line for a person; newest first."""
    from finetune.recalibration.history import history as versions_of

    return [
        (
            {
                "version": each.number,
                "lineage": each.lineage and each.lineage.model_dump(mode="json"),
                "problem": each.problem,
            },
            f"{each.story}{'  (served)' if position == 0 else ''}",
        )
        for position, each in enumerate(versions_of(place))
    ]


def _registered(model: str, tracking_uri: str | None) -> list[tuple[dict[str, Any], str]]:
    from finetune.tracking import store_uri
    from finetune.tracking.registry import open_registry

    with open_registry(store_uri(tracking_uri)) as registry:
        found = registry.versions(model)
    return [
        (
            {
                "version": each.number,
                "aliases": list(each.aliases),
                "date": each.date,
                "tags": dict(each.tags),
            },
            _story(each),
        )
        for each in found
    ]


def _story(version: RegisteredVersion) -> str:
    tags = version.tags
    served = f"  ({', '.join(version.aliases)})" if version.aliases else ""
    if "parent_version" not in tags:
        return f"{version.date} registered{served}"
    how = f"{tags.get('statistics', '')}, {tags.get('method', '')}".strip(", ")
    scores = (tags.get("accuracy_before"), tags.get("accuracy_after"))
    told = f"; accuracy {scores[0]} -> {scores[1]}" if all(scores) else ""
    forced = f"; against the gate: {tags['forced']}" if "forced" in tags else ""
    back = f"; rolled back {tags['rolled_back']}" if "rolled_back" in tags else ""
    return f"{version.date} recalibrated ({how}) from version {tags['parent_version']}{told}{forced}{back}{served}"
