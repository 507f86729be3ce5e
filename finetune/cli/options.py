"""Arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file, as in recipes/.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a value, as in stages.0.epochs=2; the value is YAML. Repeatable.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON, for scripts.")]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        metavar="URI", help="MLflow store; MLFLOW_TRACKING_URI, else sqlite:///mlflow.db, if left out."
    ),
]
