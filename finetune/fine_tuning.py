"""`finetune run` from Python, for notebooks and pipelines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.progress import Progress
from finetune.recipe_file import load_recipe, load_text
from finetune.result import RunResult
from finetune.run import run


def fine_tune(
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    runs_folder: str | Path = "runs",
    tracking_uri: str | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Fine-tune as a recipe says, prove its policy, and leave a run folder and an MLflow run.

    recipe: a YAML file, or its sections as a mapping. overrides: as after --set, "stages.0.epochs=2".
    Raises RecipeError and what `finetune.run.run` raises; `finetune.errors` has them.
    """
    if isinstance(recipe, Mapping):
        read = load_text(json.dumps(recipe), source="recipe", overrides=overrides)
    else:
        read = load_recipe(recipe, overrides)
    return run(read, runs_folder=Path(runs_folder), tracking_uri=tracking_uri, progress=progress)
