"""A recipe examined before anything is trained: the network it would begin with, its images, and what it plans."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import numpy as np

from finetune.datasets.batches import images_only
from finetune.doctor.diagnosis import Diagnosis, diagnose
from finetune.doctor.finding import Finding, Severity, by_severity
from finetune.doctor.patient import Seen, live_patient
from finetune.outlook import outlook
from finetune.prepared import build, computing_in
from finetune.progress import Progress
from finetune.recipe import Recipe
from finetune.recipe_file import load_recipe
from finetune.training import EVALUATION_BATCH, batch_size, steps_per_epoch

SAMPLES = 512
"""Calibration images that are looked at, at most."""


def of_recipe(path: Path, progress: Progress) -> Diagnosis:
    """The network that `finetune run` would begin with, its calibration images, and the training that is planned."""
    recipe = load_recipe(path)
    with computing_in(recipe.precision):
        size = recipe.data.image_size or recipe.backbone.default_image_size
        progress.phase("opening the data")
        splits = recipe.data.load(size, recipe.seed)
        keras.utils.set_random_seed(recipe.seed)
        progress.phase("building the model")
        _, trainee = build(recipe, splits)
        ahead = outlook(
            trainee,
            recipe.policy,
            recipe.stages,
            steps_per_epoch(recipe, splits),
            batch_size(recipe, splits),
            images=splits.train.count,
        )
        batches = [
            np.asarray(batch) for batch in images_only(splits.calibration, EVALUATION_BATCH, limit=SAMPLES)
        ]
        patient = live_patient(trainee.model, trainee.sites, str(path), f"recipe, {_policy_of(recipe)}")
        found = diagnose(patient, Seen(batches))
    planned = [
        *(_planned(words, "serious") for words in ahead.problems),
        *(_planned(words, "warning") for words in ahead.warnings),
    ]
    return dataclasses.replace(found, findings=by_severity((*planned, *found.findings)))


def _planned(words: str, severity: Severity) -> Finding:
    """A line of the outlook, which ends with what to do."""
    measured, end, fix = words.partition("): ")
    return Finding(
        "planned-training",
        severity,
        measured + end.removesuffix(": "),
        "this is what the recipe's policy and stages come to at the sites of this network",
        fix or "finetune list policies",
    )


def _policy_of(recipe: Recipe) -> str:
    return "rules" if isinstance(recipe.batchnorm, tuple) else f"policy {recipe.batchnorm.policy}"
