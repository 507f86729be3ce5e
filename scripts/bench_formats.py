"""What measuring a deployed network costs, in every format, beside a bare forward pass over the same images.

A network is written in every format (scripts/trained_formats.py) and opened as `finetune recalibrate` opens it. Four
sides take turns over the same batches: `bare` asks the deployed model for its outputs, `layerwise` and `one_pass`
measure its running statistics and store nothing, and `unmeasured` runs the network up to its last site as they do,
without measuring: what they cannot go below where a runtime joins a site with what is around it. Each of these builds
its graphs anew; "an image" is without that: the difference to one batch. Ratios are those of the same round, the
median of the rounds and their range. `bundled` is the trained network that comes with the package, of 56 px; weights
of the other are random: the cost hardly depends on them.

    uv run python scripts/bench_formats.py --network ResNet50 --images 256 --markdown
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

# as the command line does, read when TensorFlow is imported (finetune/cli/quiet.py)
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import numpy as np
import tensorflow as tf
import trained_formats
from numpy.typing import NDArray
from printed_table import print_table

from finetune.batchnorm.targets import Targets
from finetune.formats.deployed import DeployedModel
from finetune.formats.opening import open_model
from finetune.recalibration.deployed_network import DeployedNetwork

NETWORKS: dict[str, Callable[[], keras.Model]] = {
    "bundled": trained_formats.trained_network,
    "ResNet50": partial(trained_formats.resnet50, 160),
}
SIDES = ("unmeasured", "layerwise", "one_pass")
HEADINGS = ("format", "bare pass", "side", "clock", "processor", "clock, an image", "processor, an image")
Seconds = tuple[float, float]
"""By the clock, and of the processor, all cores together."""
Timed = tuple[Seconds, Seconds]
"""Of one side in one round: over all batches, and over one of them."""


def main() -> None:
    options = arguments()
    network = NETWORKS[options.network]()
    images = np.random.default_rng(0).integers(
        0, 256, (options.images, *network.input_shape[1:]), dtype=np.uint8
    )
    lines = []
    with tempfile.TemporaryDirectory(prefix="bench-formats-") as folder:
        for number, name in enumerate(options.formats, 1):
            print(f"{number}/{len(options.formats)} {name}", file=sys.stderr, flush=True)
            place = Path(folder) / str(number)
            place.mkdir()
            model = open_model(trained_formats.FORMATS[name](network, place))
            lines += costs(name, timed(model, fed(model, images, options.batch), options.rounds))
    print_table(HEADINGS, lines, title(options), markdown=options.markdown)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    formats = list(trained_formats.FORMATS)
    parser.add_argument("--network", default="bundled", choices=NETWORKS)
    parser.add_argument("--formats", nargs="+", default=formats, choices=formats, metavar="FORMAT")
    parser.add_argument("--images", type=int, default=1200, help="two batches or more")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--markdown", action="store_true", help="a table as the documentation has it")
    options = parser.parse_args()
    if options.images < 2 * options.batch:
        parser.error(f"--images {options.images}: at least two batches of {options.batch} are needed")
    return options


def title(options: argparse.Namespace) -> str:
    return (
        f"{options.network}, {options.images} images in batches of {options.batch}, {options.rounds} rounds; "
        f"{os.cpu_count()} cores ({platform.machine()}), Keras {keras.__version__}, TensorFlow {tf.__version__}"
    )


def fed(model: DeployedModel, images: NDArray[np.uint8], batch: int) -> list[NDArray[np.float32]]:
    """Batches as the model reads them."""
    first = model.inputs[0].shape is not None and model.inputs[0].shape[1] == images.shape[-1]
    values = images.astype(np.float32)
    values = np.ascontiguousarray(values.transpose(0, 3, 1, 2)) if first else values
    return [values[start : start + batch] for start in range(0, len(values), batch)]


def timed(model: DeployedModel, batches: Sequence[NDArray], rounds: int) -> list[dict[str, Timed]]:
    """By side, of every round but the first, which warms up."""
    sides: dict[str, Callable[[Sequence[NDArray]], Any]] = {
        "bare": lambda given: [model.predict({model.inputs[0].name: batch}) for batch in given],
        "unmeasured": partial(unmeasured, model),
        "layerwise": partial(layerwise, model),
        "one_pass": lambda given: DeployedNetwork(model).one_pass(given, {}),
    }
    return [
        {side: (seconds(go, batches), seconds(go, batches[:1])) for side, go in sides.items()}
        for _ in range(rounds + 1)
    ][1:]


def unmeasured(model: DeployedModel, batches: Sequence[NDArray]) -> None:
    network = model.network()
    flow = network.dataflow
    run = network.segment(flow.inputs, flow.measured[-1], (), precise=False)
    for batch in batches:
        run([batch])


def layerwise(model: DeployedModel, batches: Sequence[NDArray]) -> None:
    """The statistics are given back: a change of them is no part of a bare pass."""
    targets = Targets(model.sites, 0.0, None)
    DeployedNetwork(model).layerwise(
        lambda: batches,
        targets.settle,
        memory=2_000_000_000,
        precise=False,
        combine=tuple,
        watch=lambda done: None,
    )
    for site, statistics in zip(model.sites, targets.stored, strict=True):
        site.store(statistics)


def seconds(go: Callable[[Any], Any], batches: Sequence[NDArray]) -> Seconds:
    clock, processor = time.perf_counter(), time.process_time()
    go(batches)
    return time.perf_counter() - clock, time.process_time() - processor


def costs(name: str, rounds: Sequence[dict[str, Timed]]) -> list[tuple[str, ...]]:
    """A line for each side beside the bare pass."""
    bare = f"{median(each['bare'][0][0] for each in rounds):.1f} s"
    return [
        (
            name,
            bare,
            side,
            *(
                ratio([(each[side], each["bare"]) for each in rounds], kind, without_one=without_one)
                for without_one in (False, True)
                for kind in (0, 1)
            ),
        )
        for side in SIDES
    ]


def ratio(rounds: Sequence[tuple[Timed, Timed]], kind: int, *, without_one: bool) -> str:
    """rounds: of the side and of a bare pass. kind: which of `Seconds`."""

    def of(timed: Timed) -> float:
        whole, one = timed
        return whole[kind] - (one[kind] if without_one else 0.0)

    values = [of(side) / of(bare) for side, bare in rounds]
    return f"{median(values):.2f} x ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
