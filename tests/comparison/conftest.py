"""A recipe that loads in no time, and outcomes that nobody trained for."""

import pytest

from finetune.comparison.grid import Grid
from finetune.comparison.outcome import Outcome

RECIPE = """
backbone: {source: bundled}
data: {source: tfds, name: fashion_shift, batch_size: 32}
batchnorm: {policy: retrain, momentum: 0.95}
stages:
  - {train: head, epochs: 1, learning_rate: 0.1}
  - {train: everything, epochs: 2, learning_rate: 0.02}
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def grid(path):
    """Of two policies and two seeds, unless the test says otherwise."""

    def make(policies=("freeze", "retrain"), varied=(), fixed=(), rates=(), seeds=2):
        return Grid(path, policies, varied, fixed, rates, seeds)

    return make


@pytest.fixture
def outcome():
    def make(accuracy=0.5, loss=1.0, validation=0.5, **given):
        return Outcome(
            metrics={"accuracy": accuracy}, validation_loss=loss, validation_accuracy=validation, **given
        )

    return make
