"""What one training sends between 1, 2 and 4 processes on the loopback of this machine, and how long its steps take.

The bundled network is trained for some steps on batches that the processes share, once with sites that follow the batch
and once with frozen ones. Sums are counted off the graph of the step; bytes are those that the loopback carried, of all
processes together, so that nothing else may use it meanwhile:

    unshare --net sh -c 'ip link set lo up; python scripts/measure_scale.py --steps 20'

`ring` is what a ring would send for these sums: 2 (N - 1) times their bytes. The processes share the cores of one
machine, so that seconds tell what the sums cost on top, and nothing about what further machines gain.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

SIDE, IMAGES = 56, 32
MODES = {"follow": "sites follow the batch", "freeze": "sites are frozen"}
COUNTERS = Path("/proc/net/dev")


def carried() -> int:
    """Bytes that the loopback has carried so far."""
    [line] = [line for line in COUNTERS.read_text().splitlines() if line.strip().startswith("lo:")]
    return int(line.partition(":")[2].split()[0])


def sums_in(graph: Any | None) -> dict[str, float]:
    """Tensors that the processes sum up in a graph, and their bytes; and how many they gather."""
    found: dict[str, float] = {"sums": 0, "bytes": 0, "gathered": 0}
    for operation in graph.get_operations() if graph else ():
        if operation.type.startswith("CollectiveReduce"):
            [tensor] = operation.outputs
            found["sums"] += 1
            found["bytes"] += tensor.shape.num_elements() * tensor.dtype.size
        elif operation.type.startswith("CollectiveGather"):
            found["gathered"] += 1
    return found


def work(steps: int) -> dict[str, Any]:
    """The part of one process: what it found in each mode, and of a recalibration."""
    import keras
    import numpy as np

    from finetune.assemble import assemble
    from finetune.backbones import Bundled
    from finetune.batchnorm.population import input_moments
    from finetune.batchnorm.sites import find_sites
    from finetune.distribute import Distribute
    from finetune.distribution.replicas import open_replicas
    from finetune.heads import Linear

    replicas = open_replicas(Distribute(strategy="multi_worker"))
    keras.utils.set_random_seed(0)
    model = assemble(Bundled().build(SIDE), Linear(), tuple("abcdefghij"), SIDE)
    sites = find_sites(model, np.zeros((1, SIDE, SIDE, 3), np.float32))
    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (IMAGES, SIDE, SIDE, 3)).astype(np.float32)
    labels = random.integers(0, 10, IMAGES).astype(np.int32)
    found: dict[str, Any] = {}
    for mode in MODES:
        for site in sites:
            site.freeze() if mode == "freeze" else site.follow(None)
        found[mode] = train(replicas, model, sites, images, labels, steps)
    moments, _ = input_moments(model, sites, [images])
    replicas.gathered(np.zeros(1))
    before = carried()
    replicas.combine(moments)
    # nobody leaves while another still counts
    replicas.gathered(np.zeros(1))
    moved = carried() - before
    return found | {"moments": sum(8 * (1 + 2 * m.mean.size) for m in moments), "recalibration": moved}


def train(replicas: Any, model: Any, sites: Any, images: Any, labels: Any, steps: int) -> dict[str, Any]:
    """Some steps on one batch, after two that make and warm what they need."""
    import keras

    from finetune.batchnorm.fast_sites import fast_sites
    from finetune.batchnorm.sites import synchronised
    from finetune.compiling import compile_with
    from finetune.distribution.step import SharedStep

    each = len(images) // replicas.count
    mine = images[replicas.worker * each : (replicas.worker + 1) * each]
    alone = replicas.strategy is None
    with ExitStack() as around:
        if not alone:
            around.enter_context(synchronised(sites))
        around.enter_context(fast_sites(model, sites))
        compile_with(model, keras.optimizers.SGD(0.001))
        shared = None if alone else SharedStep(replicas, replicas.strategy, model)

        def step() -> None:
            shared(mine, labels, None) if shared else model.train_on_batch(images, labels)

        step()
        step()
        graph = shared._traced.get_concrete_function(mine, labels, None).graph if shared else None
        before, begun = carried(), time.perf_counter()
        for _ in range(steps):
            step()
        seconds = (time.perf_counter() - begun) / steps
        return sums_in(graph) | {"seconds": seconds, "carried": (carried() - before) / steps}


def free_ports(count: int) -> list[int]:
    with ExitStack() as open_:
        sockets = [open_.enter_context(closing(socket.socket())) for _ in range(count)]
        for each in sockets:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in sockets]


def together(workers: int, steps: int) -> dict[str, Any]:
    """What the first of so many processes found."""
    hosts = [f"localhost:{port}" for port in free_ports(workers)]
    begun = []
    for index in range(workers):
        told = {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
        settings = os.environ | {"TF_CONFIG": json.dumps(told), "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, __file__, "--steps", str(steps), "--worker"]
        begun.append(subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, text=True))
    answers = [process.communicate()[0] for process in begun]
    if any(process.returncode for process in begun):
        sys.exit(f"{workers} processes: one of them failed")
    first: dict[str, Any] = json.loads(answers[0].splitlines()[-1])
    return first


def rows(counts: list[int], steps: int) -> Iterator[str]:
    yield "| processes | | sums a step | their MB | ring, MB | carried, MB | a step, beside one process |"
    yield "|---|---|---|---|---|---|---|"
    alone: dict[str, float] = {}
    for workers in counts:
        found = together(workers, steps)
        for mode, words in MODES.items():
            seen = found[mode]
            beside = seen["seconds"] / alone.setdefault(mode, seen["seconds"])
            ring = 2 * (workers - 1) * seen["bytes"]
            sizes = " | ".join(f"{size / 1e6:.2f}" for size in (seen["bytes"], ring, seen["carried"]))
            yield f"| {workers} | {words} | {seen['sums']} | {sizes} | {beside:.2f} x |"
        moments, moved = found["moments"] / 1e6, found["recalibration"] / 1e6
        yield f"| {workers} | recalibration, once | | {moments:.2f} | | {moved:.2f} | |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(work(given.steps)))
        return
    for row in rows(given.processes, given.steps):
        print(row, flush=True)


if __name__ == "__main__":
    main()
