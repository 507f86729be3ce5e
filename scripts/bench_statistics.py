"""What measuring running statistics costs beside a bare forward pass over the same images.

Four sides alternate in one process, each over all images and with its own tracing: `bare` is the model as one
TensorFlow graph in inference mode; `two reads` is `bare` with the input of every site summed and its squares summed,
which is what moments need of what is there; `one_pass` and `layerwise` are the two methods. The last column is what
each side adds to the memory of a process of its own, at its highest. Weights are random: the cost does not depend on
them.

    uv run python scripts/bench_statistics.py --rounds 3
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

# as the command line does, read when TensorFlow is imported (finetune/cli/quiet.py)
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from finetune.batchnorm.live_model import LiveModel
from finetune.batchnorm.population import one_pass
from finetune.batchnorm.sites import BNSite, SiteCall, find_sites, replaced_calls
from finetune.batchnorm.targets import Targets

NETWORKS = ("ResNet50", "MobileNetV2", "EfficientNetB0")
SIDES = ("bare", "two reads", "one_pass", "layerwise")
Pair = tuple[float, float]
"""Seconds by the clock and of the processor, all cores together."""


def main() -> None:
    options = arguments()
    if options.memory_of:
        print(added_megabytes(options, *options.memory_of.split(":")))
        return
    table = Table("network", "side", "clock", "processor", "memory", title=machine(options))
    for network in options.networks:
        rounds = timed(network, options)
        for side in SIDES:
            table.add_row(network, side, *ratios(rounds, side), memory(network, side, options))
    # wide enough for every cell also where the output is a file
    Console(width=120).print(table)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="names in keras.applications")
    parser.add_argument("--size", type=int, default=160, help="pixels a side")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--budget", type=int, default=2000, help="MB of activations under layerwise")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    return parser.parse_args()


def machine(options: argparse.Namespace) -> str:
    return (
        f"{options.images} images of {options.size} px in batches of {options.batch}, {options.rounds} rounds; "
        f"{os.cpu_count()} cores ({platform.machine()}), Keras {keras.__version__}, TensorFlow {tf.__version__}"
    )


def sides(network: str, options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """What is compared, by name: each goes once over all images."""
    shape = (options.size, options.size, 3)
    model = getattr(keras.applications, network)(weights=None, input_shape=shape)
    images = np.random.default_rng(0).uniform(0, 255, (options.images, *shape)).astype(np.float32)
    batches = [tf.constant(images[i : i + options.batch]) for i in range(0, len(images), options.batch)]
    sites = [site for site in find_sites(model, images[:1]) if site.calls]
    return {
        "bare": lambda: bare(model, batches),
        "two reads": lambda: two_reads(model, sites, batches),
        "one_pass": lambda: one_pass(model, sites, batches),
        "layerwise": lambda: layerwise(model, sites, batches, options.budget * 1_000_000),
    }


def bare(model: keras.Model, batches: Sequence[Any]) -> None:
    shape = tf.TensorSpec([None, *batches[0].shape[1:]], tf.float32)
    graph = tf.function(lambda x: model(x, training=False), input_signature=[shape], autograph=False)
    for batch in batches:
        np.asarray(graph(batch))


def two_reads(model: keras.Model, sites: Sequence[BNSite], batches: Sequence[Any]) -> None:
    sums: list[Any] = []

    def reading(layer: keras.layers.Layer, original: SiteCall) -> SiteCall:
        def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
            # the sum and the sum of squares of every channel, by the two kernels that read and write nothing
            sums.append(tf.raw_ops.BiasAddGrad(out_backprop=inputs))
            sums.append(
                tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
                    input=inputs,
                    filter_sizes=[1, 1, inputs.shape[-1], 1],
                    out_backprop=inputs,
                    strides=[1, 1, 1, 1],
                    padding="VALID",
                )
            )
            return original(inputs, training=False, mask=mask)

        return call

    shape = tf.TensorSpec([None, *batches[0].shape[1:]], tf.float32)
    with replaced_calls([site.layer for site in sites], reading):
        graph = tf.function(
            lambda x: (model(x, training=False), list(sums)), input_signature=[shape], autograph=False
        ).get_concrete_function()
    for batch in batches:
        np.asarray(graph(batch)[0])


def layerwise(model: keras.Model, sites: Sequence[BNSite], batches: Sequence[Any], memory: int) -> None:
    LiveModel(model, sites).layerwise(
        lambda: batches,
        Targets(sites, 0.0, None).settle,
        memory=memory,
        precise=False,
        combine=tuple,
        watch=lambda done: None,
    )


def timed(network: str, options: argparse.Namespace) -> list[dict[str, Pair]]:
    """Per round the seconds of every side; the first round warms up and does not count."""
    named = sides(network, options)
    rounds = [{side: seconds(go) for side, go in named.items()} for _ in range(options.rounds + 1)]
    return rounds[1:]


def seconds(go: Callable[[], Any]) -> Pair:
    clock, processor = time.perf_counter(), time.process_time()
    go()
    return time.perf_counter() - clock, time.process_time() - processor


def ratios(rounds: Sequence[dict[str, Pair]], side: str) -> list[str]:
    """By the clock and of the processor: the median ratio to `bare` in the same round, and its spread."""
    if side == "bare":
        return [f"{median(row['bare'][kind] for row in rounds):.1f} s" for kind in (0, 1)]
    found = [sorted(row[side][kind] / row["bare"][kind] for row in rounds) for kind in (0, 1)]
    return [f"{median(each):.2f} x ({each[0]:.2f} to {each[-1]:.2f})" for each in found]


def memory(network: str, side: str, options: argparse.Namespace) -> str:
    command = [sys.executable, __file__, "--memory-of", f"{network}:{side}"]
    for name in ("size", "images", "batch", "budget"):
        command += [f"--{name}", str(getattr(options, name))]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return f"{float(answer.stdout.split()[-1]):.0f} MB"


def added_megabytes(options: argparse.Namespace, network: str, side: str) -> float:
    """By how much the peak of this process rises while one side runs."""
    go = sides(network, options)[side]
    before = peak_megabytes()
    go()
    return peak_megabytes() - before


def peak_megabytes() -> float:
    """The most that this process ever had in memory; getrusage would begin with what its parent had."""
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return float(line.split()[1]) / 1000


if __name__ == "__main__":
    main()
