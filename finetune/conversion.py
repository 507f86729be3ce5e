"""A Keras model as a file of another kind, each checked on images before it is there.

Converters fold BN into the weights beside it, so that nobody can measure its statistics anew afterwards: what should be
recalibrated is recalibrated before.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from finetune.errors import FinetuneError, InputError, OutputError
from finetune.full_disk import full_disk_as_os_error

Quantized = Literal["no", "float16", "dynamic"]
Predict = Callable[[NDArray[np.float32]], NDArray[np.floating]]
ONNX_OPSET = 17
"""onnxruntime 1.14 and newer read it."""

TOLERANCE: Mapping[str, float] = MappingProxyType({"no": 1e-3, "float16": 1e-2, "dynamic": 0.2})
"""In probability, the largest difference to the Keras model. Eight-bit weights move single images a good deal."""


@dataclass(frozen=True)
class Converted:
    """path: what was written. apart: the largest difference to the Keras model in probability, over `images` images, of
    which `changed` are told to be of another class. size: in bytes."""

    path: Path
    kind: str
    apart: float
    changed: int
    images: int
    size: int


def convert(model: keras.Model, kind: str, path: Path, quantized: Quantized = "no") -> Converted:
    """Write the model as `kind` ("onnx", "tflite" or "savedmodel") to a path that does not exist yet.

    Takes float32 images (batch, size, size, 3) as the model does. quantized: the weights of a .tflite file. Built out
    of sight and there by a rename. Raises OutputError for the place, InputError where a package is missing,
    FinetuneError where the converted model answers otherwise than the model; nothing is left then.
    """
    if path.exists():
        raise OutputError(f"{path}: is there already; remove it, or choose another place")
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent}: no such folder; make it, or choose another place")
    part = path.with_name(f".{path.name}.part")
    try:
        predict = KINDS[kind](model, part, quantized)
        examples = example_images(int(model.input_shape[1]))
        live, other = np.asarray(model(examples, training=False), np.float64), predict(examples)
        apart = float(np.max(np.abs(other - live)))
        if not apart <= TOLERANCE[quantized]:
            raise FinetuneError(
                f"{path}: the converted model differs from {model.name} by {apart:.1e} in probability (at most "
                f"{TOLERANCE[quantized]:g}); nothing was written"
            )
        part.rename(path)
    finally:
        _remove(part)
    changed = int((other.argmax(1) != live.argmax(1)).sum())
    return Converted(path, kind, apart, changed, len(examples), _size(path))


def example_images(side: int, count: int = 16) -> NDArray[np.float32]:
    """Blotches, coarse to fine, RGB values 0..255 (count, side, side, 3): they excite what noise alone does not."""
    random = np.random.default_rng(0)
    images = np.empty((count, side, side, 3), np.float32)
    for place in range(count):
        cells = min(side, 2 ** (1 + place % 6))
        coarse = random.uniform(0, 255, (1, cells, cells, 3)).astype(np.float32)
        images[place] = tf.image.resize(coarse, (side, side), method="bilinear")[0]
    return images


def to_onnx(model: keras.Model, part: Path, _: Quantized) -> Predict:
    try:
        import onnxruntime
        import tf2onnx
    except ImportError as error:
        raise InputError(
            f"--onnx: needs the package {error.name}; pip install 'finetune[onnx]', then run it again"
        ) from error
    with _quiet():
        # the converter reports to the log what it then says in its exception
        proto, _ = tf2onnx.convert.from_function(
            _serving(model), input_signature=[_signature(model)], opset=ONNX_OPSET
        )
    part.write_bytes(proto.SerializeToString())
    session = onnxruntime.InferenceSession(str(part), providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(None, {session.get_inputs()[0].name: images})[0])


def to_tflite(model: keras.Model, part: Path, quantized: Quantized) -> Predict:
    with tempfile.TemporaryDirectory(prefix="tflite-") as folder, _quiet():
        # straight from functions the converter loses the variables of Keras 3
        _write_saved_model(model, Path(folder) / "model")
        converter = tf.lite.TFLiteConverter.from_saved_model(f"{folder}/model")
        if quantized != "no":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantized == "float16":
            converter.target_spec.supported_types = [tf.float16]
        part.write_bytes(converter.convert())
        interpreter = tf.lite.Interpreter(model_path=str(part))
    return lambda images: _interpreted(interpreter, images)


def to_saved_model(model: keras.Model, part: Path, _: Quantized) -> Predict:
    _write_saved_model(model, part)
    loaded = tf.saved_model.load(str(part))
    # the name holds the loaded object: its functions do not keep its variables alive
    return lambda images: np.asarray(loaded.serve(tf.constant(images)))


KINDS: Mapping[str, Callable[[keras.Model, Path, Quantized], Predict]] = MappingProxyType(
    {"onnx": to_onnx, "tflite": to_tflite, "savedmodel": to_saved_model}
)


def _serving(model: keras.Model) -> Any:
    return tf.function(lambda image: model(image, training=False))


def _signature(model: keras.Model) -> tf.TensorSpec:
    return tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="image")


def _write_saved_model(model: keras.Model, folder: Path) -> None:
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", _serving(model), input_signature=[_signature(model)])
    with full_disk_as_os_error(folder):
        archive.write_out(str(folder), verbose=False)


def _interpreted(interpreter: Any, images: NDArray[np.float32]) -> NDArray[np.floating]:
    taken, given = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    interpreter.resize_tensor_input(taken, images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(taken, images)
    interpreter.invoke()
    return np.asarray(interpreter.get_tensor(given))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # of the interpreter that will move to another package
        warnings.simplefilter("ignore")
        yield


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _remove(part: Path) -> None:
    if part.is_dir():
        shutil.rmtree(part)
    else:
        part.unlink(missing_ok=True)
