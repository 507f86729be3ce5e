"""Images of several classes, or of none, from the table to the proven model; and what of a recipe they refuse."""

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml

import finetune
from finetune.errors import DataError, InputError
from finetune.evaluation_run import evaluate_saved
from finetune.flag_scores import entropy_of_guessing
from finetune.objective import objective_of
from finetune.recalibration.predictions import as_probabilities
from finetune.recalibration.split_images import from_recipe
from finetune.report import render
from finetune.report.card import card, weakest
from finetune.result import ClassCounts, Evaluation
from finetune.result_file import read_result, write_result
from tests.nets import tiny_backbone
from tests.sample_result import sample_result

PATTERNS = ["rows", "columns", "bright"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """160 noisy images with horizontal stripes, vertical ones, more light, or any of these together."""
    place, random = tmp_path_factory.mktemp("flags"), np.random.default_rng(0)
    flags = random.integers(0, 2, (160, 3))
    stripes = np.where(np.arange(12) // 2 % 2, 80, 0)
    parts = [np.broadcast_to(stripes[:, None], (12, 12)), np.broadcast_to(stripes, (12, 12)), 70]
    images = random.integers(0, 20, (160, 12, 12)) + sum(
        flag[:, None, None] * part for flag, part in zip(flags.T, parts, strict=True)
    )
    finetune.save_arrays(place / "patterns.npz", (images.astype(np.uint8), flags), class_names=PATTERNS)
    tiny_backbone().save(place / "backbone.keras")
    return place


def recipe(place, **keys):
    return {
        "name": "patterns",
        "backbone": {"source": "saved", "path": str(place / "backbone.keras")},
        "data": {"source": "arrays", "path": str(place / "patterns.npz"), "image_size": 12, "batch_size": 8},
        "batchnorm": {"policy": "retrain"},
        "stages": [
            {"train": "head", "epochs": 4, "learning_rate": 0.3},
            {"train": "everything", "epochs": 1, "learning_rate": 0.05},
        ],
        "tracking": {"enabled": False},
    } | keys


@pytest.fixture(scope="module")
def trained(place):
    """The head on cached features, then everything."""
    return finetune.fine_tune(recipe(place), runs_folder=place / "runs")


def test_every_class_is_learned_by_itself_and_the_policy_is_proven(trained):
    assert all(check.passed for check in trained.checks)
    assert trained.test.metrics["roc_auc"] > 0.75
    assert trained.test.confusion == ()
    assert len(trained.test.by_class) == 3
    model = keras.models.load_model(trained.folder / "model.keras", safe_mode=True)
    assert model.layers[-1].activation is keras.activations.sigmoid
    # the compiled loss is Keras' own
    assert model.loss == "binary_crossentropy"


def test_evaluate_finds_what_the_run_found(trained):
    again = evaluate_saved(trained.folder)
    assert again.by_class == trained.test.by_class
    assert again.metrics == pytest.approx(dict(trained.test.metrics), abs=1e-5)


def test_the_validation_loss_falls_below_that_of_guessing(trained, place):
    guessing = entropy_of_guessing(np.load(place / "patterns.npz")["labels"])
    found = [record.metrics["validation/loss"] for record in trained.epochs]
    assert 0 < min(found) < 0.95 * guessing < 0.95 * np.log(2)


def test_what_was_found_out_survives_the_result_file(trained, tmp_path):
    write_result(trained, tmp_path)
    assert read_result(tmp_path).test == trained.test


def test_deployed_probabilities_of_their_own_are_no_mix_of_classes(trained, place):
    """So the gate does not judge the mix of classes, and takes no labels."""
    images = np.load(place / "patterns.npz")["images"].astype("float32")
    model = keras.models.load_model(trained.folder / "model.keras")
    outputs = model.predict(np.repeat(images[..., None], 3, axis=-1), verbose=0)
    assert as_probabilities(outputs) is None
    file = place / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe(place)))
    assert from_recipe(file, 12, 16, labelled=False).count == 16
    with pytest.raises(InputError, match=r"multi-label.*leave out --labelled"):
        from_recipe(file, 12, 16, labelled=True)


def test_a_recalibration_says_that_the_mix_of_classes_was_not_judged(trained, place, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe(place)))
    done = finetune.recalibrate(
        trained.folder / "model.keras", finetune.ImageSource(recipe=file), tmp_path, dry=True
    )
    assert "class balance" not in [check.name for check in done.verdict.checks]
    assert [note for note in done.notes if "did not judge the mix of classes" in note]


def test_what_asks_for_one_class_is_refused_all_at_once(place):
    data = recipe(place)["data"] | {"class_weights": "balanced"}
    stages = [{"train": "head", "epochs": 1, "learning_rate": 0.1, "label_smoothing": 0.1}]
    wrong = recipe(place, data=data, stages=stages, head={"temperature": "fit", "weights": "pretrained"})
    with pytest.raises(InputError) as refused:
        finetune.fine_tune(wrong, runs_folder=place / "refused")
    keys = [problem.partition(":")[0] for problem in refused.value.problems]
    assert keys == ["data.class_weights", "head.weights", "head.temperature", "stages[0].label_smoothing"]
    assert not (place / "refused").exists()
    with pytest.raises(InputError, match=r"^data\.mix: the data are multi-label"):
        finetune.fine_tune(recipe(place, data=recipe(place)["data"] | {"mix": {"kind": "mixup"}}))


def test_few_images_of_a_class_are_refused_where_an_image_has_several(place):
    data = recipe(place)["data"] | {"examples_per_class": 2}
    with pytest.raises(DataError, match="examples_per_class: the data are multi-label"):
        finetune.fine_tune(recipe(place, data=data))


@pytest.mark.parametrize("labels", ["numbers", "flags"])
def test_a_model_compiled_for_a_stage_is_saved_without_the_toolkit(labels, tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "sigmoid")])
    model.compile(**objective_of(labels))
    model.save(tmp_path / "model.keras")
    assert "finetune" not in json.dumps(json.loads(model.to_json()))
    assert keras.models.load_model(tmp_path / "model.keras").loss == objective_of(labels)["loss"]


def test_report_and_card_have_a_row_for_every_class():
    counts = (ClassCounts(8, 2, 1), ClassCounts(0, 4, 0), ClassCounts(0, 0, 3))
    test = Evaluation({"accuracy": 0.9, "average_precision": 0.7}, (), 20, counts)
    result = dataclasses.replace(sample_result(Path("run"), class_names=tuple(PATTERNS)), test=test)
    page = render(result)
    assert "Which classes are found?" in page
    assert "Which classes are confused?" not in page
    assert "<title>resnet_freeze-1: 70.0 %" in page
    assert [(row.name, row.recall) for row in weakest(result)] == [("columns", 0.0), ("rows", 0.8)]
    assert "The test images have none of: bright." in card(result)
