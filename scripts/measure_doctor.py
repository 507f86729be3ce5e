"""Whether the doctor finds planted faults in real networks, and is silent about healthy ones.

Each fault (tests/doctor/planting.py) is planted in a fresh copy of a network: the bundled one with the classifier that
it was trained with, and Keras applications and keras-cv backbones with random weights, all with running statistics
that were measured on the images they are examined with. The images are 64 test images of Fashion-MNIST, as each network
reads them. Healthy networks: how many findings of each severity.

    uv run python scripts/measure_doctor.py
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

# as the command line does, read when TensorFlow is imported (finetune/cli/quiet.py)
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# the faults are those of the tests
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import keras
import numpy as np
import trained_formats
from numpy.typing import NDArray

from finetune.backbones.keras_cv import KerasCV
from finetune.batchnorm.sites import find_sites
from finetune.datasets.fashion_shift.fashion_shift_dataset_builder import SPLIT_IDS, read_test_images
from finetune.datasets.resize import to_square_uint8
from finetune.doctor_run import examine
from tests.doctor.planting import FAULTS, NEED_IMAGES, Case, healthy

COUNT = 64


def main() -> None:
    options = arguments()
    print("| healthy network | sites | serious | warnings | notes |\n|---|---|---|---|---|")
    for name in options.networks:
        case = fresh(name)
        found = examine(case.model, case.images, case.labels)
        counts = Counter(finding.severity for finding in found.findings)
        numbers = " | ".join(str(counts[severity]) for severity in ("serious", "warning", "note"))
        print(f"| {name} | {len(found.facts)} | {numbers} |", flush=True)
    if options.healthy_only:
        return
    planted_in = [name for name in options.networks if name in PLANTED_IN]
    print(f"\n| planted fault | {' | '.join(planted_in)} |\n|---|{'---|' * len(planted_in)}")
    missed = 0
    for fault in FAULTS:
        results = [found_in(name, fault) for name in planted_in]
        missed += sum(result == "missed" for result in results)
        print(f"| {fault} | {' | '.join(results)} |", flush=True)
    print(f"\n{missed} of {len(FAULTS) * len(planted_in)} missed")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS, metavar="NETWORK")
    parser.add_argument("--healthy-only", action="store_true", help="plant nothing")
    return parser.parse_args()


def found_in(network: str, fault: str) -> str:
    """The severity under which the fault is named, or `missed`."""
    kind, plant = FAULTS[fault]
    case = fresh(network)
    plant(case)
    shown = (case.images, case.labels) if kind in NEED_IMAGES else ()
    found = examine(case.model, *shown, **case.given)
    severities = [finding.severity for finding in found.findings if finding.kind == kind]
    return severities[0] if severities else "missed"


def fresh(name: str) -> Case:
    """The network as it is when it is healthy, whatever was planted in an earlier copy."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    model = NETWORKS[name]()
    if name not in HEALTHY:
        case = healthy(model, pictures(model.input_shape[1]))
        HEALTHY[name] = (model.get_weights(), case)
    weights, known = HEALTHY[name]
    model.set_weights(weights)
    return Case(model, known.images, known.labels, find_sites(model, known.images[:1]))


HEALTHY: dict[str, tuple[list[NDArray], Case]] = {}


def pictures(size: int) -> NDArray:
    found = read_test_images()[0][np.array(SPLIT_IDS["test"][:COUNT])]
    return np.asarray(to_square_uint8(keras.ops.convert_to_tensor(found), size), np.float32)


def application(name: str) -> Callable[[], keras.Model]:
    """Of Keras, with a classifier of ten classes."""
    return lambda: getattr(keras.applications, name)(weights=None, input_shape=(64, 64, 3), classes=10)


def keras_cv_backbone(name: str) -> Callable[[], keras.Model]:
    """With a classifier of ten classes."""

    def build() -> keras.Model:
        backbone = KerasCV(source="keras_cv", name=name, weights=None).build(64).model
        pooled = keras.layers.GlobalAveragePooling2D()(backbone.output)
        return keras.Model(backbone.input, keras.layers.Dense(10, activation="softmax")(pooled))

    return build


NETWORKS: dict[str, Callable[[], keras.Model]] = {
    "bundled": trained_formats.trained_network,
    "MobileNetV2": application("MobileNetV2"),
    "ResNet50": application("ResNet50"),
    "EfficientNetB0": application("EfficientNetB0"),
    "keras-cv EfficientNetV2-B0": keras_cv_backbone("efficientnetv2_b0"),
    "keras-cv MobileNetV3-Small": keras_cv_backbone("mobilenet_v3_small"),
}
PLANTED_IN = ("bundled", "MobileNetV2")

if __name__ == "__main__":
    main()
