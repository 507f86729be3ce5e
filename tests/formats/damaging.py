"""Random damage to files of models, and what recalibration makes of a damaged one: a refusal, or a correct result.

Correct is what each format's own loader says: of the damaged file before, and of the copy after it was measured.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime
import tensorflow as tf
from keras import layers
from PIL import Image

from finetune.errors import InputError
from finetune.recalibration.before_after import measure_subject
from finetune.recalibration.settings import ImageSource, Settings
from finetune.recalibration.subject import Subject, open_subject
from tests.formats import onnx_nets, saved_models
from tests.nets import disturbed

SIDE, BATCH, IMAGES = 8, 16, 32
SETTINGS = Settings(batch_size=BATCH, told={"image_size": SIDE, "scale": "unit"})


def flip(data: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << dice.randrange(8)]) + data[place + 1 :]


def cut(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data))]


def blank(data: bytes, dice: random.Random) -> bytes:
    start = dice.randrange(len(data))
    end = min(len(data), start + dice.randrange(1, 200))
    return data[:start] + bytes(end - start) + data[end:]


def swap(data: bytes, dice: random.Random) -> bytes:
    one, other = sorted(dice.randrange(len(data)) for _ in range(2))
    return data[:one] + data[other:] + data[one:other]


def overwrite(data: bytes, dice: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.randrange(1, 5)):
        changed[dice.randrange(len(data))] = dice.randrange(256)
    return bytes(changed)


def damage(model: Path, seed: int) -> None:
    """One of the files that a model consists of, in one of the ways."""
    dice = random.Random(seed)
    files = files_of(model)
    path = files[seed % len(files)]
    if dice.random() < 0.1 and len(files) > 1:
        path.unlink()
    else:
        path.write_bytes(dice.choice([flip, flip, cut, blank, swap, overwrite])(path.read_bytes(), dice))


def files_of(model: Path) -> list[Path]:
    """A SavedModel's, or a file and what lies beside it under its name: external data."""
    if model.is_dir():
        return sorted(path for path in model.rglob("*") if path.is_file())
    return sorted(model.parent.glob(f"{model.name}*"))


def small_keras_file(path: Path) -> None:
    stack = [layers.Conv2D(3, 3), layers.BatchNormalization(), layers.ReLU(), layers.GlobalAveragePooling2D()]
    dense = [layers.Dense(3), layers.BatchNormalization(), layers.Dense(3)]
    keras.utils.set_random_seed(0)
    disturbed(keras.Sequential([keras.Input((SIDE, SIDE, 3)), *stack, *dense])).save(path)


Make = Callable[[Path], Any]
FORMATS: dict[str, tuple[str, Make]] = {
    "SavedModel, Keras 3": ("model", saved_models.keras_3_export),
    "SavedModel, tf_keras": ("model", saved_models.tf_keras_save),
    "SavedModel, TF1": ("model", saved_models.tf1_resource),
    ".keras": ("model.keras", small_keras_file),
    ".h5": ("model.h5", small_keras_file),
    "ONNX": ("model.onnx", onnx_nets.STORED["raw bytes"]),
    "ONNX, Constant nodes": ("model.onnx", onnx_nets.STORED["Constant nodes"]),
    "ONNX, external data": ("model.onnx", onnx_nets.STORED["external data"]),
}
"""The name that the model has on disk, and what makes it there."""


def make(name: str, folder: Path) -> Path:
    """The whole model of a format, in a folder of its own."""
    folder.mkdir(parents=True)
    called, write = FORMATS[name]
    write(folder / called)
    return folder / called


def pictures(folder: Path) -> Path:
    """Calibration images, unlike one another in brightness and contrast."""
    folder.mkdir()
    dice = np.random.default_rng(0)
    for number in range(IMAGES):
        values = dice.normal(dice.uniform(60, 190), dice.uniform(5, 60), (SIDE, SIDE, 3))
        Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    return folder


def outcome(whole: Path, seed: int | None, images: Path, place: Path) -> str:
    """Of one copy, damaged where there is a seed: "refused", or "correct". Fails where it is neither."""
    shutil.copytree(whole.parent, place / "damaged")
    model, copy = place / "damaged" / whole.name, place / "copy" / whole.name
    if seed is not None:
        damage(model, seed)
    said: tuple[str, ...] = ()
    before = {path: path.read_bytes() for path in files_of(model)}
    try:
        served, in_force, batches = recalibrated(model, images, copy)
    except InputError as refusal:
        said = refusal.problems
    assert {path: path.read_bytes() for path in files_of(model)} == before, "the original changed"
    if said:
        assert all("\n" not in line for line in said), said
        assert not copy.parent.exists(), "a refused model left something behind"
        return "refused"
    np.testing.assert_allclose(served, live(model, batches), rtol=0, atol=1e-5)
    np.testing.assert_allclose(in_force, live(copy, batches), rtol=0, atol=1e-5)
    return "correct"


def recalibrated(model: Path, images: Path, copy: Path) -> tuple[Any, Any, list[Any]]:
    """Outputs before and after, and the batches they are of. Raises InputError."""
    subject = open_subject(str(model), SETTINGS)
    sample = subject.open_images(ImageSource(folder=images), SETTINGS)
    batches = list(subject.batches(sample, BATCH))
    served = predicted(subject, batches)
    measure_subject(subject, sample, None, SETTINGS, lambda words: None, lambda done: None)
    in_force = predicted(subject, batches)
    subject.model.write(copy)
    return served, in_force, batches


def predicted(subject: Subject, batches: list[Any]) -> Any:
    name = subject.model.inputs[0].name
    return np.concatenate([one_of(subject.model.predict({name: batch})) for batch in batches])


def live(model: Path, batches: list[Any]) -> Any:
    """What the format's own library makes of a file."""
    if model.is_dir():
        # the name holds the loaded object: its functions do not keep its variables alive
        loaded = tf.saved_model.load(str(model))
        serve = loaded.signatures["serving_default"]
        (name,) = serve.structured_input_signature[1]
        return np.concatenate([one_of(serve(**{name: tf.constant(batch)})) for batch in batches])
    if model.suffix == ".onnx":
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return np.concatenate([session.run(None, {name: batch})[0] for batch in batches])
    net = keras.saving.load_model(model, compile=False)
    return np.concatenate([net.predict_on_batch(batch) for batch in batches])


def one_of(outputs: Any) -> Any:
    """The one output of a model."""
    (values,) = outputs.values()
    return np.asarray(values)
