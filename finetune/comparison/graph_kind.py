"""What the graphs of a cell may depend on, so that cells which share them meet in one process."""

from __future__ import annotations

import json
from typing import Any

from finetune.recipe import Recipe

OF_A_CELL = ("name", "tracking", "seed")
"""Sections of a recipe that no graph depends on; nor does it on the camera and on the learning rates."""


def decides_graphs(recipe: Recipe) -> dict[str, Any]:
    """As plain values."""
    plain = recipe.model_dump(mode="json", exclude={*OF_A_CELL})
    del plain["data"]["shift"]
    for stage in plain["stages"]:
        del stage["learning_rate"]
    return plain


def graph_kind(recipe: Recipe) -> str:
    """The same for recipes of which the second runs on the graphs of the first (finetune.comparison.kept_graphs)."""
    return json.dumps(decides_graphs(recipe))
