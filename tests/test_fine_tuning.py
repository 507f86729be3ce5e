"""A run from Python: a recipe as a file or as a mapping, and images that are arrays."""

import numpy as np
import pytest

import finetune
from finetune.errors import RecipeError
from tests.nets import tiny_backbone


def recipe(path):
    return {
        "name": "arrays",
        "backbone": {"source": "saved", "path": str(path.with_name("backbone.keras"))},
        "data": {"source": "arrays", "path": str(path), "image_size": 12, "batch_size": 8},
        "batchnorm": {"policy": "recalibrate"},
        "stages": [{"train": "head", "epochs": 1, "learning_rate": 0.1}],
        "tracking": {"enabled": False},
    }


def test_arrays_are_trained_on_and_the_policy_is_proven(tmp_path):
    labels = np.arange(60) % 2
    # bright and dark squares, so that two classes can be learned in an epoch
    images = np.random.default_rng(0).integers(0, 100, (60, 12, 12)) + 150 * labels[:, None, None]
    path = finetune.save_arrays(
        tmp_path / "x.npz", (images.astype(np.uint8), labels), class_names=["dark", "bright"]
    )
    tiny_backbone().save(tmp_path / "backbone.keras")
    result = finetune.fine_tune(recipe(path), ["seed=3"], runs_folder=tmp_path / "runs")
    assert all(check.passed for check in result.checks)
    assert result.folder.parent == tmp_path / "runs"
    assert (result.folder / "model.keras").is_file()
    assert result.test.metrics["accuracy"] > 0.9


def test_what_is_wrong_with_a_mapping_is_said(tmp_path):
    wrong = recipe(tmp_path / "x.npz") | {"batchnorm": {"policy": "freez"}}
    with pytest.raises(RecipeError, match=r"recipe.*batchnorm\.policy.*did you mean 'freeze'"):
        finetune.fine_tune(wrong)
