"""A Keras model out of MLflow, by an address such as `models:/shirts@champion` or `runs:/<run id>/model`."""

from __future__ import annotations

from pathlib import Path

from finetune.errors import WeightsError, first_line
from finetune.masking import masked

SCHEMES = ("models:/", "runs:/", "mlflow-artifacts:/")
INSIDE = ("data/model.keras", "data/model.h5")
"""Where mlflow.keras puts the model in its folder."""


def is_address(path: str) -> bool:
    return path.startswith(SCHEMES)


def fetched(address: str) -> Path:
    """The model file, on this machine. The store is that of MLFLOW_TRACKING_URI, or mlflow.db in this folder.

    Raises WeightsError where there is no such model, or none that Keras saved.
    """
    import mlflow

    try:
        folder = Path(mlflow.artifacts.download_artifacts(address))
    # MLflow raises its own kind, and those of whatever store and network are behind it
    except Exception as error:
        reason = masked(first_line(error))
        raise WeightsError(
            f"{address}: MLflow does not have it ({reason}); MLFLOW_TRACKING_URI says which store is asked"
        ) from error
    file = next((folder / name for name in INSIDE if (folder / name).is_file()), None)
    if file is None:
        raise WeightsError(f"{address}: holds no model that mlflow.keras logged ({INSIDE[0]})")
    return file
