"""Runs on a small network that are broken off: what they are made of, and how they end."""

import signal
from pathlib import Path

import pytest

from finetune.errors import Interrupted
from finetune.progress import Progress
from finetune.recipe_file import load_text
from finetune.run import run

RECIPE = """
name: small
seed: 1
backbone: {{source: saved, path: {folder}/backbone.keras}}
head: {{dropout: 0.2}}
data:
  source: tfds
  name: fashion_shift
  train: "train[:96]"
  validation: "validation[:48]"
  test: "test[:60]"
  calibration: "calibration[:64]"
  image_size: 12
  batch_size: 32
batchnorm: {policy}
stages: {stages}
tracking: {tracking}
"""
STAGES = {
    # features kept, then batches that the stages share
    "two": "[{train: head, epochs: 2, learning_rate: 0.1}, {train: everything, epochs: 3, learning_rate: 0.005}]",
    # shared batches in both stages; the best epoch is not the last
    "shared": "[{train: everything, epochs: 2, learning_rate: 0.005},"
    " {train: everything, epochs: 3, learning_rate: 0.05, optimizer: adam, schedule: constant}]",
    # three legs, and an average of the weights
    "legs": "[{train: everything, epochs: 4, learning_rate: 0.005, batch_size: [16, 32, 32, 48], ema: 0.9}]",
    # it stops by itself after two epochs
    "early": "[{train: everything, epochs: 9, learning_rate: 5.0, warmup: 0, schedule: constant, early_stopping: 1}]",
}


def text_of(place, stages, policy="{policy: retrain}", experiment=None):
    """experiment: in MLflow; None for a run that is not logged."""
    store = f'{{uri: "sqlite:///{place}/mlflow.db", experiment: {experiment}, register: {experiment}}}'
    tracking = store if experiment else "{enabled: false}"
    return RECIPE.format(folder=place, policy=policy, stages=STAGES[stages], tracking=tracking)


class BrokenOff(Progress):
    """What ends a run at once: in the step (from 1) that comes when so many epochs are over, counted over all stages,
    or when a phase begins."""

    def __init__(self, after=None, step=1, phase=None):
        self.after, self.step, self.at, self.done = after, step, phase, 0

    def batch(self, step, loss, accuracy):
        if (self.done, step) == (self.after, self.step):
            self.end()

    def end(self):
        raise KeyboardInterrupt

    def epoch(self, epoch, metrics):
        self.done += 1

    def phase(self, words):
        if self.at and words.startswith(self.at):
            raise KeyboardInterrupt


class Asked(BrokenOff):
    """A person who presses Ctrl-C once, or a batch queue."""

    def end(self):
        signal.raise_signal(signal.SIGINT)


def broken_off(place, text, by=BrokenOff, **at):
    with pytest.raises(
        Interrupted, match=r"^interrupted; go on with: finetune run --resume .*small-\d+$"
    ) as stopped:
        run(load_text(text), runs_folder=place / "runs", progress=by(**at))
    return Path(str(stopped.value).split()[-1])
