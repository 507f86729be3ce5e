"""MLflow's own UI on a store: the command that serves it and the page where the runs are."""

from __future__ import annotations

import sys

from finetune.errors import InputError
from finetune.masking import masked
from finetune.tracking.manners import good_manners
from finetune.tracking.store import open_client


def ui_command(uri: str, port: int) -> list[str]:
    """The command that serves the UI of a local store at 127.0.0.1:<port>.

    Raises InputError where the store is a server, which shows the runs itself.
    """
    if uri.startswith(("http://", "https://")):
        raise InputError(f"the runs are on a server that shows them itself: open {masked(uri)} in a browser")
    # one worker: each of MLflow's usual four imports everything again and is up only after a minute
    arguments = ["--backend-store-uri", uri, "--port", str(port), "--workers", "1"]
    return [sys.executable, "-m", "mlflow", "server", *arguments]


def ui_address(uri: str, port: int, experiment: str) -> str:
    """The page with the charts of all runs of an experiment, or the front page where there is none yet.

    It names the view: from the front page MLflow 3 leads to the traces of language models first.
    """
    with good_manners(uri):
        known = open_client(uri).get_experiment_by_name(experiment)
    page = f"experiments/{known.experiment_id}/runs?compareRunsMode=CHART&" if known else "?"
    return f"http://127.0.0.1:{port}/#/{page}workflowType=machine_learning"
