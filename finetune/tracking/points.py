"""Values as MLflow keeps them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.entities import Metric


def points_now(points: Iterable[tuple[str, float, int]], model_id: str | None = None) -> list[Metric]:
    """Of (name, value, step), with the time at which they were said: when they are sent is up to the store."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(name, value, now, step, model_id=model_id) for name, value, step in points]
