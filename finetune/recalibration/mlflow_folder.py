"""The model inside an MLflow model folder: taken out to be measured, and another one put in its place.

Everything else in the folder stays: signature, requirements, code and example are those of the same network.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from finetune.errors import ModelError
from finetune.recalibration.companions import provenance_file, reference_file

KERAS = ("data/model.keras", "data/model.h5", "data/model")


def model_inside(folder: Path) -> Path:
    """The SavedModel folder or the model file, relative to `folder`.

    Raises ModelError where the folder is no MLflow model, or has no flavour with a file that can be recalibrated.
    """
    try:
        flavours: dict[str, Any] = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))["flavors"]
        names = [name for name, settings in flavours.items() for name in _places(name, settings)]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise ModelError(f"{folder}: holds no readable MLmodel file; expected an MLflow model") from error
    for name in names:
        if (folder / name).resolve().is_relative_to(folder.resolve()) and (folder / name).exists():
            return Path(name)
    raise ModelError(
        f"{folder}: expected a model of the flavour keras, tensorflow or onnx, found "
        f"{', '.join(sorted(flavours)) or 'no flavour'}; recalibrate the file that it was logged from"
    )


def _places(flavour: str, settings: dict[str, Any]) -> tuple[str, ...]:
    if flavour == "onnx":
        return (str(settings["data"]),)
    if flavour == "tensorflow" and "saved_model_dir" in settings:
        return (str(settings["saved_model_dir"]),)
    return KERAS if flavour in ("keras", "tensorflow") else ()


def take_out(folder: Path, into: Path) -> Path:
    """A copy of the model alone, with its provenance and reference statistics beside it; returns where it lies.

    In the folder these lie beside MLmodel, since MLflow gives the model's own place another use.
    """
    inside = folder / model_inside(folder)
    target = into / inside.name
    if inside.is_dir():
        shutil.copytree(inside, target)
    else:
        into.mkdir()
        for file in [inside, *_external(inside)]:
            (target.parent / file.relative_to(inside.parent)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target.parent / file.relative_to(inside.parent))
    for companion in (provenance_file(target), reference_file(target)):
        if (folder / companion.name).is_file():
            companion.parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / companion.name, companion)
    return target


def put_back(version: Path, folder: Path) -> None:
    """Change `folder` so that it holds a version that was built of what `take_out` gave."""
    inside = folder / model_inside(folder)
    if inside.is_dir():
        shutil.rmtree(inside)
        shutil.copytree(version, inside)
        built = version
    else:
        built = version / inside.name
        for file in [built, *_external(built)]:
            shutil.copyfile(file, inside.parent / file.relative_to(version))
    for companion in (provenance_file(built), reference_file(built)):
        (folder / companion.name).unlink(missing_ok=True)
        if companion.is_file():
            shutil.copyfile(companion, folder / companion.name)


def _external(model: Path) -> list[Path]:
    """The files beside an ONNX model that its tensors lie in."""
    if model.suffix != ".onnx":
        return []
    import onnx

    from finetune.formats.onnx_copy import external_files

    names = external_files(onnx.load(model, load_external_data=False))
    return [model.parent / name for name in names]
