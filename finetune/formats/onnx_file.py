"""ONNX files with BatchNormalization nodes, by onnx and onnxruntime: the extra `onnx` of this package."""

from __future__ import annotations

from pathlib import Path

from finetune.errors import ModelError
from finetune.formats.deployed import DeployedModel

EXTRA = ("onnx", "onnxruntime")


def open_onnx(path: Path) -> DeployedModel:
    """An `.onnx` file, with the files of external data beside it where it has some.

    Raises ModelError, in words, where it is damaged, its statistics cannot be measured anew, or the extra is missing.
    """
    try:
        from finetune.formats.onnx_model import OnnxModel
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        raise ModelError(
            f"{path}: ONNX files need the package {error.name}, which is not installed: pip install 'finetune[onnx]'"
        ) from error
    if not path.is_file():
        raise ModelError(
            f"{path}: expected an .onnx file, found {'a folder' if path.exists() else 'nothing'}"
        )
    return OnnxModel(path)
