"""What a .keras file holds: its model, and what can be known of it without Keras."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from finetune.backbones.keras2_saved_model import read_keras2, side_in_metadata
from finetune.damaged_archive import DAMAGED
from finetune.errors import WeightsError, first_line
from finetune.layer_packages import import_layer_packages

if TYPE_CHECKING:
    import keras


Told = TypeVar("Told")

LEGACY = (".h5", ".hdf5")
"""Whole models as Keras 2 saved them; Keras 3 refuses Python code in them by itself."""


def expected_side(path: Path) -> int | None:
    """Side in px of the images that the model takes; None where it takes any, or where only Keras can tell (.h5).

    Raises WeightsError.
    """
    if path.is_dir():
        return side_in_metadata(path)
    if path.suffix in LEGACY:
        return None
    return _told_by_config(path, _side)


def read_model(path: Path) -> keras.Model:
    """The model in the file, or in the SavedModel of Keras 2.

    Raises WeightsError where it is missing, damaged or holds Python code.
    """
    import keras

    if path.is_dir():
        return read_keras2(path)
    if path.suffix not in LEGACY and _told_by_config(path, _holds_code):
        raise WeightsError(
            f"{path}: holds Python code (a Lambda layer), which is never run from a file; "
            "rebuild that layer from Keras operations and save the model again"
        )
    import_layer_packages(path)
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    # an archive may be damaged in any of its parts, and each reader inside Keras raises its own kind
    except Exception as error:
        reason = first_line(error)
        raise WeightsError(f"{path}: Keras cannot load it: {reason}") from error


def known_class_names(path: Path, count: int) -> tuple[str, ...]:
    """The names in the provenance.json beside the file, where there are `count` of them; else none."""
    try:
        record = json.loads((path.parent / "provenance.json").read_text("utf-8"))
        names = record["data"]["class_names"]
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    return tuple(names) if isinstance(names, list) and len(names) == count else ()


def _told_by_config(path: Path, tell: Callable[[Any], Told]) -> Told:
    """What `tell` finds in the configuration of a .keras file, however it is nested."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; expected a model that Keras saved as .keras")
    try:
        with zipfile.ZipFile(path) as archive:
            return tell(json.loads(archive.read("config.json")))
    except DAMAGED as error:
        raise WeightsError(
            f"{path}: damaged or not a .keras file; save the model again with model.save"
        ) from error


def _side(config: Any) -> int | None:
    for shape in _input_shapes(config):
        if len(shape) == 4:
            return shape[1]
    return None


def _input_shapes(node: Any) -> list[list[int | None]]:
    """Shapes of the input layers, outermost first."""
    if isinstance(node, list):
        return [shape for child in node for shape in _input_shapes(child)]
    if not isinstance(node, dict):
        return []
    if node.get("class_name") == "InputLayer":
        return [node["config"].get("batch_shape") or node["config"]["batch_input_shape"]]
    return _input_shapes(list(node.values()))


def _holds_code(node: Any) -> bool:
    if isinstance(node, list):
        return any(map(_holds_code, node))
    if not isinstance(node, dict):
        return False
    return "__lambda__" in (node.get("class_name"), node.get("value")) or any(map(_holds_code, node.values()))
