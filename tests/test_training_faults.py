"""Memory that runs out and images that vanish while a network trains: one line, and what was trained is kept."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from finetune import fine_tune
from finetune.errors import DataError, InputError
from finetune.progress import Progress
from finetune.resumption import resume
from finetune.training_faults import faults_in_words
from tests.nets import tiny_backbone


@pytest.fixture
def photos(tmp_path):
    random = np.random.default_rng(0)
    for name in ("one", "two"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(12):
            pixels = random.integers(0, 256, (12, 12, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


class Vanishing(Progress):
    """The pictures go away when the second stage begins."""

    def __init__(self, photos):
        self.photos = photos

    def stage(self, title, *rest):
        if title.startswith("stage 2"):
            self.photos.rename(self.photos.with_name("elsewhere"))
        super().stage(title, *rest)


def recipe(photos):
    return {
        "name": "vanishing",
        "backbone": {"source": "saved", "path": str(photos.with_name("backbone.keras"))},
        "data": {"source": "image_folder", "path": str(photos), "image_size": 12, "batch_size": 4},
        "batchnorm": {"policy": "freeze"},
        "stages": [
            {"train": "head", "epochs": 1, "learning_rate": 0.1},
            {"train": "everything", "epochs": 1, "learning_rate": 0.01},
        ],
        "tracking": {"enabled": False},
    }


def test_images_that_vanish_are_one_line_and_the_run_goes_on_when_they_are_back(
    photos, tmp_path, monkeypatch
):
    tiny_backbone().save(tmp_path / "backbone.keras")
    # the images would stay in memory once they were read
    monkeypatch.setattr("finetune.datasets.examples.KEPT_IN_MEMORY", 4 * 12 * 12 * 3)
    with pytest.raises(DataError, match=r"no longer can: FileNotFoundError: .*photos.*png.*put it back"):
        fine_tune(recipe(photos), runs_folder=tmp_path / "runs", progress=Vanishing(photos))
    shutil.move(photos.with_name("elsewhere"), photos)
    result = resume(tmp_path / "runs" / "vanishing-1")
    assert result.verified
    assert [record.stage for record in result.epochs] == [1, 2]


@pytest.mark.parametrize(
    ("size", "said"), [(64, "data.batch_size=32, with accumulate: 2"), (1, "image_size")]
)
def test_memory_that_runs_out_is_one_line_with_a_smaller_batch(size, said):
    with pytest.raises(InputError, match=rf"memory ran out with {size} image.*{said}"), faults_in_words(size):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


def test_what_it_does_not_know_stays_what_it_is():
    for said in ("something else", "XlaRuntimeError: a kernel is missing"):
        with pytest.raises(tf.errors.InternalError), faults_in_words(8):
            raise tf.errors.InternalError(None, None, said)
