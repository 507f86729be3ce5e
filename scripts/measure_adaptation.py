"""What statistics of the new images do to a network that nobody trains: two published findings on the bundled network.

images: accuracy after the running statistics were measured on so many images of the changed camera, with the source
statistics counting as N0 images (Schneider et al. 2020, "Improving robustness against common corruptions by covariate
shift adaptation", arXiv:2006.16971). batches: accuracy where every batch is normalised with its own moments, without
any running statistics (Nado et al. 2020, "Evaluating prediction-time batch normalization for robustness under covariate
shift", arXiv:2006.10963). Both beside the network as it was trained; mean and standard deviation over draws of the
images, which the 3,000 test images are no part of.

    uv run python scripts/measure_adaptation.py --figures recipes/figures
    uv run python scripts/measure_adaptation.py --severities --figures recipes/figures

--severities: every change of the camera at every severity instead, before and after the statistics were measured on
512 images of it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

# as the command line does, read when TensorFlow is imported (finetune/cli/quiet.py)
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import matplotlib
import numpy as np
import tensorflow as tf
import trained_formats
from matplotlib.figure import Figure
from numpy.typing import NDArray

from finetune.batchnorm.measure import measure
from finetune.batchnorm.sites import BNSite, find_sites
from finetune.datasets.camera import Kind, Shift
from finetune.datasets.fashion_shift.fashion_shift_dataset_builder import SPLIT_IDS, read_test_images
from finetune.datasets.resize import to_square_uint8

CAMERAS: dict[str, Shift | None] = {
    "clean": None,
    **{kind: Shift(kind=kind, severity=3) for kind in ("fog", "contrast", "noise", "invert")},
}
POOL = (*SPLIT_IDS["validation"], *SPLIT_IDS["calibration"])
COUNTS = (1, 4, 16, 64, 256, 2048)
PRIORS = (0, 16, 256)
BATCHES = (2, 8, 32, 128, 512)
SEVERITIES = range(1, 6)
WHOLE = 256
"""Images a batch where its size does not matter."""
STYLE = matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "adaptation", "font.size": 9})
"""The same numbers give the same file."""
Accuracies = dict[str, list[float]]
"""By setting, one for each draw."""


def main() -> None:
    options = arguments()
    network = trained_formats.trained_network()
    if options.severities:
        print(of_severities(network, options))
        return
    found: dict[str, dict[str, Accuracies]] = {}
    for camera in options.cameras:
        print(camera, file=sys.stderr, flush=True)
        scene = Scene(network, CAMERAS[camera], options.tests)
        found[camera] = {
            "as trained": {"": [scene.accuracy()]},
            "images": scene.by_images(options.draws),
            "batches": scene.by_batches(options.draws),
        }
    if options.figures:
        draw(found, options.figures)
    print(json.dumps(found, indent=2) if options.json else in_tables(found))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cameras", nargs="+", default=list(CAMERAS), choices=CAMERAS, metavar="CAMERA")
    parser.add_argument("--draws", type=int, default=5, help="of the images, and of the batches")
    parser.add_argument("--tests", type=int, default=3000, help="test images, up to 3,000")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="draw adaptation_*.svg there")
    parser.add_argument("--severities", action="store_true", help="every camera at every severity instead")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


class Scene:
    """The network behind one camera; every measurement starts from the statistics that it was trained to."""

    def __init__(self, network: keras.Model, camera: Shift | None, tests: int) -> None:
        self.network = network
        self.sites: Sequence[BNSite] = find_sites(
            network, np.zeros((1, *network.input_shape[1:]), np.float32)
        )
        self.trained = [site.statistics for site in self.sites]
        self.pool = pictures(POOL, camera)
        numbers = SPLIT_IDS["test"][:tests]
        self.tests = pictures(numbers, camera)
        self.labels = read_test_images()[1].astype(int)[np.array(numbers)]

    def accuracy(self) -> float:
        scores = self.network.predict(self.tests, batch_size=WHOLE, verbose=0)
        return float(np.mean(scores.argmax(axis=1) == self.labels))

    def by_images(self, draws: int) -> Accuracies:
        return {
            f"{prior} {count}": [self.measured_on(count, prior, seed) for seed in range(draws)]
            for prior in PRIORS
            for count in COUNTS
        }

    def measured_on(self, count: int, prior: int, seed: int) -> float:
        chosen = self.pool[np.random.default_rng(seed).permutation(len(self.pool))[:count]]
        # one_pass is exact on one batch, and layerwise on any
        method = "one_pass" if count <= WHOLE else "layerwise"
        measure(
            self.network,
            self.sites,
            lambda: np.split(chosen, range(WHOLE, count, WHOLE)),
            method=method,
            prior=prior,
            warn=lambda words: None,
        )
        return self._and_back()

    def _and_back(self) -> float:
        accuracy = self.accuracy()
        for site, statistics in zip(self.sites, self.trained, strict=True):
            site.store(statistics)
        return accuracy

    def by_batches(self, draws: int) -> Accuracies:
        return {str(size): [self._batchwise(size, seed) for seed in range(draws)] for size in BATCHES}

    def _batchwise(self, size: int, seed: int) -> float:
        order = np.random.default_rng(seed).permutation(len(self.tests))
        # a rest would be normalised with fewer images than the size says
        batches = np.split(order[: len(order) // size * size], len(order) // size)
        # the network has no layer but BN that training=True changes
        in_batch_mode = tf.function(lambda images: self.network(images, training=True))
        right = [
            np.mean(in_batch_mode(self.tests[batch]).numpy().argmax(axis=1) == self.labels[batch])
            for batch in batches
        ]
        for site, statistics in zip(self.sites, self.trained, strict=True):
            site.store(statistics)
        return float(np.mean(right))


def of_severities(network: keras.Model, options: argparse.Namespace) -> str:
    """A table by camera and severity, and a figure."""
    found: dict[str, list[tuple[float, float]]] = {}
    for kind in get_args(Kind):
        for severity in SEVERITIES:
            print(f"{kind} {severity}", file=sys.stderr, flush=True)
            scene = Scene(network, Shift(kind=kind, severity=severity), options.tests)
            found.setdefault(kind, []).append((scene.accuracy(), scene.measured_on(512, 0, 0)))
    if options.figures:
        draw_severities(found, options.figures)
    if options.json:
        return json.dumps(found, indent=2)
    rows = [[kind, *(f"{old:.3f} → {new:.3f}" for old, new in pairs)] for kind, pairs in found.items()]
    return table(["severity", *map(str, SEVERITIES)], rows)


def pictures(numbers: Sequence[int], shift: Shift | None) -> NDArray[np.float32]:
    images = read_test_images()[0][np.array(numbers)]
    if shift is not None:
        images = shift.apply(images, [int(number) for number in numbers])
    return np.asarray(to_square_uint8(keras.ops.convert_to_tensor(images), trained_formats.SIDE), np.float32)


def in_tables(found: dict[str, dict[str, Accuracies]]) -> str:
    images = [
        [f"{camera}, N0 = {prior}", *(words(each["images"][f"{prior} {count}"]) for count in COUNTS)]
        for camera, each in found.items()
        for prior in PRIORS
    ]
    batches = [
        [camera, words(each["as trained"][""]), *(words(each["batches"][str(size)]) for size in BATCHES)]
        for camera, each in found.items()
    ]
    return "\n\n".join(
        (
            table(["images", *(f"{count:,}" for count in COUNTS)], images),
            table(["batch size", "as trained", *map(str, BATCHES)], batches),
        )
    )


def words(values: Sequence[float]) -> str:
    mean = f"{np.mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.3f}"


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (heading, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(heading), *lines[1:]])


def draw(found: dict[str, dict[str, Accuracies]], folder: Path) -> None:
    """Two figures, one column of axes for each camera."""

    def of_images(axes: Any, each: dict[str, Accuracies]) -> None:
        for prior in PRIORS:
            bars(axes, COUNTS, [each["images"][f"{prior} {count}"] for count in COUNTS], f"N0 = {prior}")

    def of_batches(axes: Any, each: dict[str, Accuracies]) -> None:
        bars(axes, BATCHES, [each["batches"][str(size)] for size in BATCHES], "each batch's own moments")

    side_by_side(found, of_images, "images measured on", folder / "adaptation_images.svg")
    side_by_side(found, of_batches, "batch size at prediction", folder / "adaptation_batches.svg")


@STYLE
def draw_severities(found: dict[str, list[tuple[float, float]]], folder: Path) -> None:
    """One column of axes for each camera."""

    figure, columns = columns_of(len(found))
    for axes, (kind, pairs) in zip(columns, found.items(), strict=True):
        for place, label in enumerate(("as trained", "measured anew")):
            axes.plot(SEVERITIES, [pair[place] for pair in pairs], "o-", markersize=3, label=label)
        axes.set(title=kind, xlabel="severity", xticks=SEVERITIES, ylim=(0, 1))
    finish(figure, columns, folder / "adaptation_severities.svg")


def bars(axes: Any, places: Sequence[int], values: Sequence[Sequence[float]], label: str) -> None:
    spread = [np.std(each, ddof=1) if len(each) > 1 else 0.0 for each in values]
    axes.errorbar(
        places, [np.mean(each) for each in values], spread, label=label, marker="o", markersize=3, capsize=2
    )


@STYLE
def side_by_side(
    found: dict[str, dict[str, Accuracies]],
    plot: Callable[[Any, dict[str, Accuracies]], None],
    label: str,
    file: Path,
) -> None:
    figure, columns = columns_of(len(found))
    for axes, (camera, each) in zip(columns, found.items(), strict=True):
        axes.axhline(each["as trained"][""][0], color="0.5", linestyle="--", linewidth=1, label="as trained")
        plot(axes, each)
        axes.set(title=camera, xscale="log", xlabel=label, ylim=(0, 1))
    finish(figure, columns, file)


def columns_of(count: int) -> tuple[Figure, Sequence[Any]]:
    """Axes of one height, side by side."""
    figure = Figure(figsize=(2.3 * count + 0.6, 2.9), layout="constrained")
    return figure, figure.subplots(1, count, sharey=True, squeeze=False)[0]


def finish(figure: Figure, columns: Sequence[Any], file: Path) -> None:
    columns[0].set_ylabel("test accuracy")
    columns[-1].legend(fontsize=8, frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    main()
