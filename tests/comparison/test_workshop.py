"""Cells of one process: whatever was trained before, each is what a process of its own makes of it, to the bit."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from finetune.comparison.grid import Grid
from finetune.comparison.workers import carried_out, compute_on
from tests.nets import tiny_backbone

RECIPE = """
backbone: {{source: saved, path: {folder}/backbone.keras}}
data:
  source: tfds
  name: fashion_shift
  train: "train[:96]"
  validation: "validation[:48]"
  test: "test[:60]"
  calibration: "calibration[:64]"
  image_size: 12
  batch_size: 32
head: {{dropout: 0.5}}
batchnorm: {{policy: retrain}}
stages:
  - {{train: head, epochs: 1, learning_rate: 0.1}}
  - {{train: everything, epochs: 2, learning_rate: 0.05}}
"""


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workshop")
    tiny_backbone().save(folder / "backbone.keras")
    (folder / "small.yaml").write_text(RECIPE.format(folder=folder))
    shifts = ("data.shift.kind=fog", "data.shift.kind=contrast")
    return Grid(folder / "small.yaml", ("recalibrate", "retrain"), (shifts,), (), (), 2)


def in_one_process(cells, monkeypatch, folder):
    """What comes of each, one after the other on one thread; seconds aside."""
    monkeypatch.setenv("FINETUNE_CACHE", str(folder))
    with ProcessPoolExecutor(1, get_context("spawn"), compute_on, (1,)) as pool:
        return [outcome.plain() | {"seconds": 0} for outcome in pool.map(carried_out, cells)]


def test_a_cell_is_the_same_first_in_its_process_and_after_others(grid, monkeypatch, tmp_path):
    recalibrate, retrain, elsewhere, _ = grid.arms()
    first, other = grid.cell(recalibrate, None, 0), grid.cell(elsewhere, None, 1)
    cell = grid.cell(retrain, None, 1)
    before, _, after, again = in_one_process([first, other, cell, first], monkeypatch, tmp_path / "of_many")
    [alone] = in_one_process([cell], monkeypatch, tmp_path / "of_one")
    assert not alone["failed"]
    assert after == alone
    assert again == before
    assert alone["validation_loss"] != before["validation_loss"]
