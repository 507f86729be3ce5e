"""`finetune ui` becomes MLflow's UI on the right store."""

import os

from finetune import tracking
from finetune.tracking import store_uri, ui_command


def test_ui_becomes_mlflow_on_the_store_that_was_named(finetune, monkeypatch):
    became, asked = [], []
    monkeypatch.setattr(os, "execv", lambda *command: became.append(command))
    monkeypatch.setattr(
        tracking, "ui_address", lambda *of: asked.append(of) or "http://127.0.0.1:5001/#/page"
    )
    monkeypatch.delenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", raising=False)
    answer = finetune("ui", "--tracking-uri", "sqlite:///there.db", "--port", "5001", "--experiment", "mine")
    command = ui_command(store_uri("sqlite:///there.db"), 5001)
    assert became == [(command[0], command)]
    assert asked == [("sqlite:///there.db", 5001, "mine")]
    assert answer.err == "in a moment at http://127.0.0.1:5001/#/page\n"
    assert os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


def test_ui_of_a_folder_is_refused(finetune):
    answer = finetune("ui", "--tracking-uri", "mlruns")
    assert answer.code == 2
    assert answer.err.startswith("error: tracking URI 'mlruns'")
