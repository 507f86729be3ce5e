"""Measure what the thresholds of the gate rest on: the bundled network on fashion_shift, fair and unfair samples.

Rows: the change of the camera, the number and the classes of the calibration images, by how much the classes that
are predicted afterwards differ from a fair sample (`excess`), the share of predictions that changed, what accuracy
gained per changed prediction (`worth`), the largest residual, and the accuracy on 1,000 other images before and
after. --run: the model of a run folder instead, matched to its reference statistics. --scales: how far the first
site's input is from what the site keeps, for a wrong scale of the images and for every change of the camera.

    uv run python scripts/measure_gate.py [--run runs/resnet_freeze-1 | --scales]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from finetune.backbones.bundled_weights import FOLDER, resnet50_quarter
from finetune.backbones.weights_file import load_weights
from finetune.batchnorm.measure import measure
from finetune.batchnorm.moments import PopulationMoments, RunningStatistics
from finetune.batchnorm.moments_file import REFERENCE, load
from finetune.batchnorm.sites import BNSite, find_sites
from finetune.datasets.camera import Shift
from finetune.datasets.fashion_shift.fashion_shift_dataset_builder import SPLIT_IDS, read_test_images
from finetune.datasets.resize import to_square_uint8
from finetune.recalibration.labelled import right
from finetune.recalibration.predictions import agreement
from finetune.recalibration.preprocessing import WORDS, Preprocessing
from finetune.recalibration.scale_check import distance
from finetune.recalibration.skew import class_shares, excess, uniform

SIDE, CLASSES, BATCH = 56, 10, 128
TEST = tuple(SPLIT_IDS["test"])[:1000]
ALL = tuple(range(CLASSES))
KINDS = ("fog", "contrast", "brightness", "noise", "blur", "jpeg", "invert")
ROWS: tuple[tuple[Shift | None, int, Sequence[int]], ...] = (
    *((Shift(kind=kind, severity=3), 512, ALL) for kind in ("fog", "contrast", "brightness", "invert")),
    *((Shift(kind=kind, severity=5), 512, ALL) for kind in ("fog", "contrast")),
    *((Shift(kind=kind, severity=3), 512, (0, 1)) for kind in ("fog", "contrast", "brightness")),
    *((None, 512, classes) for classes in (ALL, (0, 1), (5, 7), (7, 9), (0, 2, 4, 5, 7))),
    *((None, count, ALL) for count in (1, 8, 16, 32, 64)),
)


Reference = Mapping[str, PopulationMoments]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, help="folder of a run on fashion_shift")
    parser.add_argument("--scales", action="store_true", help="the first site under wrong scales instead")
    options = parser.parse_args()
    model, reference = opened(options.run)
    if options.scales:
        print_scales(model)
        return
    sites = find_sites(model, np.zeros((1, SIDE, SIDE, 3), np.float32))
    trained = [site.statistics for site in sites]
    print("| change | images | classes | excess | changed | worth | residual | accuracy |")
    print("|---|---|---|---|---|---|---|---|")
    for shift, count, classes in ROWS:
        for site, statistics in zip(sites, trained, strict=True):
            site.store(statistics)
        print(row(model, sites, reference, shift, count, classes), flush=True)


def opened(run: Path | None) -> tuple[keras.Model, Reference | None]:
    if run is not None:
        return keras.saving.load_model(run / "model.keras", compile=False), load(run / REFERENCE).moments
    model = resnet50_quarter(CLASSES, SIDE)
    load_weights(model, FOLDER / "resnet50_quarter.weights.h5", "the bundled network")
    return model, None


def row(
    model: keras.Model,
    sites: Sequence[BNSite],
    reference: Reference | None,
    shift: Shift | None,
    count: int,
    classes: Sequence[int],
) -> str:
    labels = read_test_images()[1].astype(int)
    pool = [number for number in SPLIT_IDS["calibration"] if labels[number] in classes]
    chosen = np.sort(np.random.default_rng(0).permutation(pool)[:count])
    images, others = pictures(chosen, shift), pictures(TEST, shift)
    before, accuracy = predicted(model, images), accuracy_of(model, others, labels)
    # one batch of all images, where one pass is exact and quick
    found = measure(model, sites, lambda: [images], method="one_pass", reference=reference)
    after = predicted(model, images)
    apart = excess(class_shares(after.argmax(1), CLASSES), uniform(CLASSES), len(images))
    changed = 1 - agreement(before, after)
    gained = float(np.mean(right(after, labels[chosen])) - np.mean(right(before, labels[chosen])))
    named = "all" if len(classes) == CLASSES else ", ".join(map(str, classes))
    return (
        f"| {shift or 'no change'} | {len(images)} | {named} | {apart:.2f} | {changed:.2f} "
        f"| {gained / changed if changed else 0:.2f} | {found.residual:.0e} "
        f"| {accuracy:.3f} -> {accuracy_of(model, others, labels):.3f} |"
    )


def pictures(numbers: Sequence[int], shift: Shift | None) -> NDArray[np.float32]:
    images = read_test_images()[0][np.array(numbers)]
    if shift is not None:
        images = shift.apply(images, [int(number) for number in numbers])
    return np.asarray(to_square_uint8(keras.ops.convert_to_tensor(images), SIDE), np.float32)


def predicted(model: keras.Model, images: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(model.predict(images, batch_size=BATCH, verbose=0), np.float64)


def accuracy_of(model: keras.Model, images: NDArray[np.float32], labels: NDArray[np.integer]) -> float:
    return float(np.mean(predicted(model, images).argmax(axis=1) == labels[np.array(TEST)]))


def print_scales(model: keras.Model) -> None:
    """For each scale that a network could expect: the nearest wrong scale of another size, and the furthest camera."""
    first = find_sites(model, np.zeros((1, SIDE, SIDE, 3), np.float32))[0]
    numbers = SPLIT_IDS["calibration"][:64]
    clean = pictures(numbers, None).astype(np.uint8)
    seen = {
        str(shift): pictures(numbers, shift).astype(np.uint8)
        for shift in (Shift(kind=kind, severity=severity) for kind in KINDS for severity in range(1, 6))
    }
    print("| expected | fed in a wrong scale | largest of 35 changes of the camera |\n|---|---|---|")
    for expected in WORDS:
        kept = at_first(model, first, clean, expected)
        wrong = {
            fed: distance(kept, at_first(model, first, clean, fed), first.epsilon)
            for fed in WORDS
            if fed != expected
        }
        cameras = {
            name: distance(kept, at_first(model, first, images, expected), first.epsilon)
            for name, images in seen.items()
        }
        worst = max(cameras, key=cameras.__getitem__)
        told = ", ".join(f"{fed} {far:.3g}" for fed, far in wrong.items())
        print(f"| {expected} | {told} | {cameras[worst]:.3g} ({worst}) |", flush=True)


def at_first(model: keras.Model, first: BNSite, images: NDArray[np.uint8], scale: str) -> RunningStatistics:
    """The moments of the first site's input."""
    backbone = model.get_layer("resnet50_quarter")
    fed = Preprocessing(image_size=SIDE, scale=scale, order="rgb").apply(images)
    values = np.asarray(keras.Model(backbone.input, first.layer.input).predict(fed, verbose=0), np.float64)
    flat = values.reshape(-1, values.shape[-1])
    return PopulationMoments.of_batch(len(flat), flat.mean(axis=0), flat.var(axis=0)).statistics()


if __name__ == "__main__":
    main()
