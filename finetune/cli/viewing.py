"""`finetune ui`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from finetune.cli.options import TrackingUri


def ui(
    tracking_uri: TrackingUri = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where on this machine it listens.")] = 5000,
) -> None:
    """Show the runs in MLflow's UI.

    On the store that `finetune run` writes to, until Ctrl-C.

    \b
    finetune ui
    finetune ui --tracking-uri sqlite:///elsewhere/mlflow.db --port 5001
    """
    from finetune.tracking import store_uri, ui_command

    command = ui_command(store_uri(tracking_uri), port)
    typer.echo(f"http://127.0.0.1:{port}", err=True)
    # replaces this process, so that Ctrl-C reaches MLflow itself
    os.execv(command[0], command)
