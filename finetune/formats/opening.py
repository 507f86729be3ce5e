"""What kind of model lies at a path, found by looking at the file, and opened."""

from __future__ import annotations

from pathlib import Path

from finetune.contributed import contributions, in_words, opener
from finetune.errors import ModelError
from finetune.formats.deployed import DeployedModel

ZIP, HDF5, TFLITE = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"TFL3"
KNOWN = "a SavedModel folder, a .keras or .h5 file, or an .onnx file"
FROZEN = (".pb", ".pbtxt")


def open_model(
    path: Path, *, signature: str | None = None, trust: bool = False, twin: Path | None = None
) -> DeployedModel:
    """Open whatever is known. signature: of a SavedModel. trust: run Lambda layers that a Keras file brings along.

    twin: an export of a Keras file, through which it is measured where its code is not here.
    Raises ModelError in one line that says what was found, what is expected and what can be done.
    """
    if not path.exists():
        raise ModelError(f"{path}: there is nothing; expected {KNOWN}")
    if path.is_dir():
        return _open_folder(path, signature)
    start = _first_bytes(path)
    if start[4:8] == TFLITE:
        raise ModelError(
            f"{path}: a TensorFlow Lite model: its BN was folded into the weights when it was converted; "
            "recalibrate the model that it was converted from, and convert again"
        )
    if start.startswith((ZIP, HDF5)):
        return _open_keras(path, signature, trust, twin)
    if path.suffix == ".onnx":
        from finetune.formats.onnx_file import open_onnx

        return open_onnx(path)
    if path.suffix in FROZEN:
        raise ModelError(
            f"{path}: a frozen graph: its statistics are constants; recalibrate the SavedModel it was frozen from"
        )
    return _contributed(path, "this file is none of them")


def _open_keras(path: Path, signature: str | None, trust: bool, twin: Path | None) -> DeployedModel:
    from finetune.formats.keras_file import open_keras_file
    from finetune.formats.keras_loading import CodeMissingError

    try:
        return open_keras_file(path, trust=trust)
    except CodeMissingError:
        if twin is None:
            raise
    from finetune.formats.keras_twin import open_through_twin

    return open_through_twin(path, twin, signature)


def _open_folder(path: Path, signature: str | None) -> DeployedModel:
    if (path / "saved_model.pb").is_file():
        from finetune.formats.saved_model import open_saved_model

        return open_saved_model(path, signature)
    found = ", ".join(sorted(entry.name for entry in path.iterdir())[:4]) or "nothing"
    return _contributed(path, f"found a folder with {found}")


def _contributed(path: Path, found: str) -> DeployedModel:
    """By a format of another package: what its entry point names takes a path, and returns None for what it is not."""
    known = [KNOWN]
    for entry in contributions("finetune.formats"):
        model: DeployedModel | None = opener(entry)(path)
        if model is not None:
            return model
        known.append(in_words(entry))
    raise ModelError(f"{path}: expected {', or '.join(known)}; {found}")


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(8)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
