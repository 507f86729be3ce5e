"""What MLflow costs a training: no store, a local one, a server that takes its time, one that falls silent on the way.

    python scripts/bench_tracking.py --rounds 3

The same small training under each, in alternation. `waited` is the time that the training spent in telling MLflow about
its epochs, as a share of the training. `in turn` is the same where each epoch waits until it has arrived, as it would
without a thread that sends. The server is MLflow's own; every request takes it --delay seconds more.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import keras
import numpy as np
from werkzeug.serving import WSGIRequestHandler, make_server

import finetune
from finetune.tracking import Tracker

RECIPE = """
name: bench
backbone: {{source: saved, path: {place}/backbone.keras}}
data: {{source: arrays, path: {place}/images.npz, image_size: 28}}
batchnorm: {{policy: retrain}}
stages: [{{train: everything, epochs: {epochs}, learning_rate: 0.01}}]
"""
TIMEOUT = 3
"""Seconds that a silent server is given, in place of 20: the training is not longer."""


class Slow:
    """MLflow's server, with a delay. silent: it takes requests and answers none."""

    def __init__(self, delay: float) -> None:
        from mlflow.server import app

        self.app, self.delay, self.silent = app, delay, threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        time.sleep(self.delay)
        if self.silent.is_set():
            time.sleep(3600)
        return self.app(environ, start_response)


class Quiet(WSGIRequestHandler):
    def log(self, *words: Any) -> None:
        pass


@contextmanager
def serving(place: Path, delay: float) -> Iterator[tuple[str, Slow]]:
    os.environ["_MLFLOW_SERVER_FILE_STORE"] = os.environ["_MLFLOW_SERVER_REGISTRY_STORE"] = (
        f"sqlite:///{place}/server.db"
    )
    os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = f"{place}/artifacts"
    slow = Slow(delay)
    server = make_server("127.0.0.1", 0, slow, threaded=True, request_handler=Quiet)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", slow
    server.shutdown()


def prepare(place: Path, epochs: int) -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((28, 28, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    for _ in range(4):
        x = keras.layers.ReLU()(
            keras.layers.BatchNormalization()(keras.layers.Conv2D(16, 3, strides=2, padding="same")(x))
        )
    keras.Model(inputs, x).save(place / "backbone.keras")
    draw = np.random.default_rng(0)
    labels = np.arange(2000) % 4
    images = (draw.integers(0, 128, (2000, 28, 28, 3)) + 32 * labels[:, None, None, None]).astype(np.uint8)
    finetune.save_arrays(place / "images.npz", (images, labels), class_names=["a", "b", "c", "d"])
    (place / "recipe.yaml").write_text(RECIPE.format(place=place, epochs=epochs))


class Waiting:
    """Measures what the training waits for in `log_epoch`. slow: falls silent at the third epoch, where it is given."""

    def __init__(self, in_turn: bool, slow: Slow | None) -> None:
        self.in_turn, self.slow, self.seconds, self.epochs = in_turn, slow, 0.0, 0
        self.log_epoch = Tracker.log_epoch

    def __call__(self, tracker: Tracker, step: int, metrics: Any) -> None:
        training = "learning_rate" in metrics
        begun = time.perf_counter()
        self.epochs += training
        if training and self.slow and self.epochs == 3:
            self.slow.silent.set()
        self.log_epoch(tracker, step, metrics)
        if self.in_turn:
            tracker.settle()
        if training:
            self.seconds += time.perf_counter() - begun


def trained(place: Path, kind: str, delay: float, *, in_turn: bool) -> dict[str, float]:
    """Seconds of the training and of the whole run, and the share of the training that was waiting for MLflow."""
    with serving(place, delay) as (uri, slow):
        waiting = Waiting(in_turn, slow if kind == "silent" else None)
        where = [] if kind in ("slow", "silent") else ["tracking.enabled=false"] if kind == "off" else []
        store = uri if kind in ("slow", "silent") else f"sqlite:///{place}/mlflow.db"
        begun = time.perf_counter()
        with patch.object(Tracker, "log_epoch", lambda *given: waiting(*given)):
            result = finetune.fine_tune(
                place / "recipe.yaml", where, runs_folder=place / "runs", tracking_uri=store
            )
        slow.silent.clear()
    training = result.seconds["training"]
    whole = time.perf_counter() - begun
    return {"training": training, "whole": whole, "waited": waiting.seconds / training}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--delay", type=float, default=1.0)
    given = parser.parse_args()
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(TIMEOUT))
    found: dict[tuple[str, bool], list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        prepare(place, given.epochs)
        trained(place, "local", 0, in_turn=False)
        for _ in range(given.rounds):
            for kind in ("off", "local", "slow", "silent"):
                for in_turn in (False, True) if kind != "off" else (False,):
                    delay = given.delay if kind == "slow" else 0
                    found[kind, in_turn].append(trained(place, kind, delay, in_turn=in_turn))
                    print(kind, in_turn, found[kind, in_turn][-1], flush=True)
    print(
        "| store | sent | training, s | whole run, s | waited, share of the training |\n|---|---|---|---|---|"
    )
    for (kind, in_turn), rows in found.items():
        training, whole, waited = (
            median(row[key] for row in rows) for key in ("training", "whole", "waited")
        )
        sent = "in turn" if in_turn else "by a thread"
        print(f"| {kind} | {sent} | {training:.2f} | {whole:.1f} | {100 * waited:.2f} % |")


if __name__ == "__main__":
    main()
