"""A Keras file as an MLflow model that pyfunc can load: raw uint8 images in, probabilities out."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from mlflow.entities import LoggedModel


def write_model_folder(
    folder: Path,
    logged: LoggedModel,
    keras_path: Path,
    images: np.ndarray,
    probabilities: np.ndarray,
    requirements: Sequence[str],
    beside: Sequence[Path],
) -> None:
    """Fill `folder`, which exists, with what MLflow serves.

    The flavour is `mlflow.keras`: 1.4 s for 53 sites where a new export as a SavedModel takes 7 s, and no pickle
    inside, which `mlflow.tensorflow` writes. `requirements` are given because to infer them takes 13 s.
    """
    import keras
    import mlflow.keras
    from mlflow.models import Model, infer_signature

    mlflow.keras.save_model(
        keras.saving.load_model(keras_path, compile=False),
        str(folder),
        mlflow_model=_empty_model(Model, logged),
        signature=infer_signature(images, probabilities),
        # one image: an example is stored as text, 150,000 numbers for 224 x 224 px
        input_example=images[:1],
        pip_requirements=list(requirements),
    )
    for path in beside:
        shutil.copy(path, folder)


def _empty_model(kind: Any, logged: LoggedModel) -> Any:
    return kind(
        artifact_path=logged.artifact_location,
        run_id=logged.source_run_id,
        model_uuid=logged.model_id,
        model_id=logged.model_id,
    )
