"""One trained network in service in every format, behind a camera that changed: what recalibration gives and costs.

The bundled network with its own classifier is written in every format (scripts/trained_formats.py), and
`finetune.recalibrate` publishes a new version of each from pictures of the changed camera, of which it is given no
labels. The table: accuracy on the test images, clean, changed and recalibrated; the accuracy of the same network
recalibrated in live Keras on the same pictures, and the largest difference of a logit to it, before anything is
recalibrated (what two engines make of the same numbers), by method, and to `layerwise` with sums in float64; accuracy
after 64 pictures; bytes of the model that differ from its parent; seconds of a whole `finetune.recalibrate`. What a
measurement costs beside a bare pass is printed by scripts/bench_formats.py.

    uv run python scripts/measure_formats.py --images 1200 --markdown
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path

# as the command line does, read when TensorFlow is imported (finetune/cli/quiet.py)
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import numpy as np
import tensorflow as tf
import trained_formats
from bench_formats import fed
from numpy.typing import NDArray
from PIL import Image
from printed_table import print_table

from finetune import ImageSource, Settings, recalibrate
from finetune.batchnorm.measure import measure
from finetune.batchnorm.sites import find_sites
from finetune.datasets.camera import Shift
from finetune.datasets.fashion_shift.fashion_shift_dataset_builder import SPLIT_IDS, read_test_images
from finetune.datasets.resize import to_square_uint8
from finetune.errors import GateError
from finetune.formats.deployed import DeployedModel
from finetune.formats.opening import open_model
from finetune.recalibration.images import open_folder
from finetune.recalibration.versions import model_in

BATCH, FEW = 64, 64
METHODS = ("layerwise", "one_pass")
BEFORE, EXACT = "before", "exact"
"""Among the logits: of the network as it was trained, and of `layerwise` whose sums live Keras takes in float64."""
CAMERAS = {"fog": Shift(kind="fog", severity=3), "contrast": Shift(kind="contrast", severity=3)}


@dataclass(frozen=True)
class Row:
    """accuracy: clean, changed, and by method. live, apart: by method, BEFORE and EXACT, accuracy in live Keras and the
    largest difference of a logit to it. few: accuracy after FEW pictures. files: names of those that differ. command:
    seconds."""

    format: str
    accuracy: dict[str, float]
    live: dict[str, float]
    apart: dict[str, float]
    few: float
    bytes_changed: int
    files: tuple[str, ...]
    command: float


@dataclass(frozen=True, eq=False)
class Scene:
    """pictures: of the changed camera, in a folder. clean, changed: test images (n, side, side, 3). live: logits of
    the changed images in live Keras, by method, BEFORE and EXACT."""

    folder: Path
    pictures: Path
    samples: int
    clean: NDArray[np.uint8]
    changed: NDArray[np.uint8]
    labels: NDArray[np.integer]
    live: dict[str, NDArray]

    def accuracy(self, logits: NDArray) -> float:
        return float(np.mean(logits.argmax(axis=1) == self.labels))


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="measure-formats-") as folder:
        network = trained_formats.trained_network()
        scene = set_scene(network, Path(folder), options)
        rows = []
        for number, name in enumerate(options.formats, 1):
            print(f"{number}/{len(options.formats)} {name}", file=sys.stderr, flush=True)
            try:
                rows.append(measured(name, network, scene))
            except GateError as error:
                print(f"{name}: refused: {error}", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
        return
    print_table(HEADINGS, list(map(cells, rows)), title(options), markdown=options.markdown)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    formats = list(trained_formats.FORMATS)
    parser.add_argument("--formats", nargs="+", default=formats, choices=formats, metavar="FORMAT")
    parser.add_argument("--camera", default="fog", choices=CAMERAS)
    parser.add_argument(
        "--images", type=int, default=1200, help="pictures of the changed camera, up to 1,500"
    )
    parser.add_argument("--tests", type=int, default=3000, help="test images, up to 3,000")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--markdown", action="store_true", help="tables as the README has them")
    return parser.parse_args()


def title(options: argparse.Namespace) -> str:
    return (
        f"{options.camera} (severity 3), {options.images} images in batches of {BATCH}, {options.tests} test images; "
        f"{os.cpu_count()} cores ({platform.machine()}), Keras {keras.__version__}, "
        f"TensorFlow {tf.__version__}"
    )


def set_scene(network: keras.Model, folder: Path, options: argparse.Namespace) -> Scene:
    """The pictures of the changed camera on disk, and what live Keras makes of them."""
    shift = CAMERAS[options.camera]
    pictures = folder / "pictures"
    pictures.mkdir()
    taken = SPLIT_IDS["calibration"][: options.images]
    for number, picture in zip(taken, photographs(taken, shift), strict=True):
        Image.fromarray(picture).save(pictures / f"{number}.png")
    tests = SPLIT_IDS["test"][: options.tests]
    changed = photographs(tests, shift)
    labels = read_test_images()[1].astype(int)[np.array(tests)]
    live = {method: in_live_keras(network, pictures, changed, len(taken), method) for method in METHODS}
    live[BEFORE] = logits_of(network, changed)
    live[EXACT] = in_live_keras(network, pictures, changed, len(taken), "layerwise", precise=True)
    return Scene(folder, pictures, len(taken), photographs(tests, None), changed, labels, live)


def photographs(numbers: Sequence[int], shift: Shift | None) -> NDArray[np.uint8]:
    images = read_test_images()[0][np.array(numbers)]
    if shift is not None:
        images = shift.apply(images, list(numbers))
    return np.asarray(to_square_uint8(keras.ops.convert_to_tensor(images), trained_formats.SIDE), np.uint8)


def in_live_keras(
    network: keras.Model,
    pictures: Path,
    changed: NDArray,
    samples: int,
    method: str,
    *,
    precise: bool = False,
) -> NDArray:
    """Logits of the network itself, recalibrated on the same batches; it gets its statistics back."""
    sites = find_sites(network, changed[:1].astype(np.float32))
    trained = [site.statistics for site in sites]
    images = open_folder(pictures, samples)
    measure(
        network,
        sites,
        lambda: map(np.float32, images.batches(trained_formats.SIDE, BATCH)),
        method=method,
        precise=precise,
    )
    logits = logits_of(network, changed)
    for site, statistics in zip(sites, trained, strict=True):
        site.store(statistics)
    return logits


def logits_of(network: keras.Model, images: NDArray[np.uint8]) -> NDArray:
    return np.asarray(network.predict(images.astype(np.float32), batch_size=BATCH, verbose=0))


def measured(name: str, network: keras.Model, scene: Scene) -> Row:
    """The network in one format, in a folder of its own. Raises GateError where the gate refuses."""
    place = scene.folder / name.replace(" ", "_")
    place.mkdir()
    original = trained_formats.FORMATS[name](network, place)
    served = open_model(original)
    publish = partial(published, original, scene)
    begun = time.perf_counter()
    versions = {method: publish(method, scene.samples) for method in METHODS}
    command = (time.perf_counter() - begun) / len(METHODS)
    few, _ = publish("layerwise", min(FEW, scene.samples), place / "few")
    logits = {
        method: predicted(open_model(version), scene.changed) for method, (version, _) in versions.items()
    }
    logits[BEFORE], logits[EXACT] = predicted(served, scene.changed), logits["layerwise"]
    version, changed = versions["layerwise"]
    return Row(
        format=name,
        accuracy={
            "clean": scene.accuracy(predicted(served, scene.clean)),
            "changed": scene.accuracy(logits[BEFORE]),
            **{method: scene.accuracy(logits[method]) for method in METHODS},
        },
        live={method: scene.accuracy(values) for method, values in scene.live.items()},
        apart={kind: float(np.abs(values - scene.live[kind]).max()) for kind, values in logits.items()},
        few=scene.accuracy(predicted(open_model(few), scene.changed)),
        bytes_changed=changed,
        files=differing(original, version),
        command=command,
    )


def published(
    original: Path, scene: Scene, method: str, samples: int, place: Path | None = None
) -> tuple[Path, int]:
    """The new version, and how many bytes of it differ: through the public interface, behind the gate."""
    side = trained_formats.SIDE
    done = recalibrate(
        original,
        ImageSource(folder=scene.pictures),
        place or original.parent / method,
        Settings(
            method=method,  # type: ignore[arg-type]
            samples=samples,
            batch_size=BATCH,
            told={"image_size": side, "scale": "none"},
            refused=scene.folder / "refused.json",
        ),
    )
    assert done.version is not None
    return model_in(done.version), done.bytes_changed


def differing(original: Path, version: Path) -> tuple[str, ...]:
    """Names of the model's files whose bytes are others; what is published beside a model does not count."""
    if original.is_file():
        pairs = [(original, version)]
    else:
        pairs = [
            (file, version / file.relative_to(original)) for file in original.rglob("*") if file.is_file()
        ]
    return tuple(
        old.name
        for old, new in pairs
        if any(a != b for a, b in zip_longest(old.read_bytes(), new.read_bytes()))
    )


def predicted(model: DeployedModel, images: NDArray[np.uint8]) -> NDArray:
    name = model.inputs[0].name
    return np.concatenate([next(iter(model.predict({name: b}).values())) for b in fed(model, images, BATCH)])


HEADINGS = (
    *("format", "clean", "changed", "layerwise", "one_pass", "live Keras", "logits apart"),
    *(f"{FEW} pictures", "bytes that differ", "in", "command"),
)


def cells(row: Row) -> tuple[str, ...]:
    a, files = row.accuracy, ", ".join(sorted(row.files))
    return (
        row.format,
        *(f"{a[kind]:.4f}" for kind in ("clean", "changed", *METHODS)),
        " / ".join(f"{row.live[method]:.4f}" for method in METHODS),
        " / ".join(f"{row.apart[kind]:.0e}" for kind in (BEFORE, *METHODS, EXACT)),
        f"{row.few:.4f}",
        f"{row.bytes_changed:,}",
        files,
        f"{row.command:.0f} s",
    )


if __name__ == "__main__":
    main()
