"""`finetune ui`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from finetune.cli.options import TrackingUri


def ui(
    tracking_uri: TrackingUri = None,
    experiment: Annotated[str, typer.Option(help="Whose runs the address leads to.")] = "finetune",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where on this machine it listens.")] = 5000,
) -> None:
    """Show the runs in MLflow's UI.

    On the store that `finetune run` writes to, until Ctrl-C.

    \b
    finetune ui
    finetune ui --tracking-uri sqlite:///elsewhere/mlflow.db --port 5001
    """
    from finetune.tracking import store_uri, ui_address, ui_command

    store = store_uri(tracking_uri)
    command = ui_command(store, port)
    typer.echo(f"in a moment at {ui_address(store, port, experiment)}", err=True)
    # MLflow's queue for language-model jobs: seven idle processes that no run here needs
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    # replaces this process, so that Ctrl-C reaches MLflow itself
    os.execv(command[0], command)
