"""`finetune sync`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finetune.cli.options import TrackingUri
from finetune.cli.quiet import import_quietly
from finetune.cli.watching import progress_for


def sync(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs.")],
    tracking_uri: TrackingUri = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show the result only.")] = False,
) -> None:
    """Send to MLflow what it missed of finished runs.

    For stores that were away during a run, or to another store. What is
    there already is not sent again.

    \b
    finetune sync runs/resnet_freeze-1
    finetune sync runs/* --tracking-uri http://mlflow.example:5000
    """
    from finetune.run_state import finished_state

    for folder in folders:
        finished_state(folder)
    progress = progress_for(quiet)
    progress.phase("importing TensorFlow")
    import_quietly(any_backend=True)
    from finetune.sync_run import sync as send

    for folder in folders:
        run_id = send(folder, tracking_uri=tracking_uri, progress=progress)
        typer.echo(f"{folder}  sent, run {run_id}")
