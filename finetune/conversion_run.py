"""`finetune export`: recalibrate where asked, convert, check, and say where it came from."""

from __future__ import annotations

import datetime
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from finetune.backbones.keras_file import read_model
from finetune.conversion import Converted, Quantized, convert
from finetune.errors import InputError
from finetune.progress import Progress
from finetune.recalibration.model_hash import model_hash
from finetune.recalibration.settings import ImageSource, Settings
from finetune.recalibration.subject import model_at
from finetune.recalibration_run import recalibrate
from finetune.whole_file import write_whole


def export_model(
    model: Path,
    wanted: Mapping[str, Path],
    *,
    images: Path | None = None,
    settings: Settings | None = None,
    quantized: Quantized = "no",
    progress: Progress | None = None,
) -> list[Converted]:
    """Write a fine-tuned model as each kind of file that is wanted: {"onnx": path, ...}.

    model: a .keras file, a run folder, or a folder of versions of one. images: pictures on which its statistics are
    measured anew first, behind the gate; settings: of that. Beside each file lies FILE.provenance.json. Raises
    InputError where nothing is wanted or the model is no Keras file, and what `recalibrate` and `convert` raise.
    """
    progress = progress or Progress()
    if not wanted:
        raise InputError("nothing to write: say --onnx FILE, --tflite FILE or --savedmodel DIR")
    if quantized != "no" and "tflite" not in wanted:
        raise InputError(
            "--quantize: is for --tflite; an .onnx file is quantized by onnxruntime.quantization"
        )
    file = keras_file_of(model)
    with tempfile.TemporaryDirectory(prefix="export-") as folder:
        source = file if images is None else _recalibrated(file, images, settings, Path(folder), progress)
        network = read_model(source)
        done = []
        for kind, path in wanted.items():
            progress.phase(f"converting {model} to {kind}")
            weights: Quantized = quantized if kind == "tflite" else "no"
            done.append(convert(network, kind, path, weights))
            _record(done[-1], file, images, weights)
    return done


def keras_file_of(model: Path) -> Path:
    """The .keras file behind a path. Raises InputError where there is none."""
    if not model.exists():
        raise InputError(
            f"{model}: there is nothing; expected a .keras file, a run folder or a folder of versions"
        )
    inside = model / "model.keras"
    file = inside if inside.is_file() else model_at(model)
    if file.suffix != ".keras":
        raise InputError(
            f"{model}: expected a .keras file, a run folder or a folder of versions of one; found {file.name}; a "
            "SavedModel is converted by tf.lite.TFLiteConverter.from_saved_model or tf2onnx themselves"
        )
    return file


def _recalibrated(
    file: Path, images: Path, settings: Settings | None, folder: Path, progress: Progress
) -> Path:
    done = recalibrate(file, ImageSource(folder=images), folder, settings, progress=progress)
    if done.version is None:
        raise InputError(f"{file}: recalibration published nothing")
    return model_at(done.version)


def _record(done: Converted, file: Path, images: Path | None, quantized: str) -> None:
    record = {
        "kind": done.kind,
        "parent": {"file": str(file), "sha256": model_hash(file)},
        "recalibrated_on": str(images) if images else None,
        "quantized": quantized,
        "largest_difference_in_probability": done.apart,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    beside = done.path.with_name(f"{done.path.name}.provenance.json")
    write_whole(beside, json.dumps(record, indent=2) + "\n")
