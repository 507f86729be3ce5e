"""MLflow: what a run was, how it went and what came of it. Takes mappings and paths; importing it imports no MLflow."""

from finetune.tracking.result import log_result
from finetune.tracking.run import Tracker, open_run
from finetune.tracking.store import store_uri
from finetune.tracking.ui import ui_address, ui_command

__all__ = ["Tracker", "log_result", "open_run", "store_uri", "ui_address", "ui_command"]
