"""What a run has before it begins: its data, its network, and what a person should know."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import keras
import numpy as np

from finetune.assemble import assemble
from finetune.backbones.base import BuiltBackbone
from finetune.batch_sizes import sizes_by_key
from finetune.batchnorm.sites import find_sites
from finetune.checkpoint import values_of
from finetune.datasets.base import Splits
from finetune.distribution.agreement import fingerprint
from finetune.distribution.replicas import ALONE, Replicas
from finetune.distribution.uneven import uneven_batches
from finetune.errors import InputError
from finetune.keras_backend import leave_accelerators_to_keras
from finetune.multi_label import refuse_one_class_only
from finetune.outlook import outlook
from finetune.progress import Progress
from finetune.recipe import Recipe
from finetune.stopwatch import Stopwatch
from finetune.trained_part import Trainee, kept_layers
from finetune.training import batch_size, steps_per_epoch


@dataclass(frozen=True, eq=False)
class Prepared:
    """A recipe with its data and its network. warnings: what a person should know before the training."""

    recipe: Recipe
    splits: Splits
    built: BuiltBackbone
    trainee: Trainee
    warnings: tuple[str, ...]
    replicas: Replicas = ALONE


def prepare(recipe: Recipe, progress: Progress, watch: Stopwatch, replicas: Replicas = ALONE) -> Prepared:
    """Nothing is written. Raises InputError where the recipe cannot be carried out."""
    progress.phase(f"{recipe.name}: opening the data")
    with watch.phase("data"):
        splits = recipe.data.load(recipe.data.image_size or recipe.backbone.default_image_size, recipe.seed)
    progress.phase(f"building the backbone and its head for {len(splits.class_names)} classes")
    # after the data: preparing a dataset for the first time draws random numbers of its own
    keras.utils.set_random_seed(recipe.seed)
    with watch.phase("model"):
        built, trainee = build(recipe, splits)
        warnings = look_ahead(recipe, splits, trainee, replicas)
    return Prepared(recipe, splits, built, trainee, warnings, replicas)


def build(recipe: Recipe, splits: Splits) -> tuple[BuiltBackbone, Trainee]:
    """The backbone with its head as one model, and its sites. Raises InputError where they do not fit the recipe."""
    refuse_one_class_only(recipe, splits)
    built = recipe.backbone.build(splits.image_size)
    for stage in recipe.stages:
        kept_layers(built.model, stage.train)
    model = assemble(
        built, recipe.head, splits.class_names, splits.image_size, multi_label=splits.multi_label
    )
    one_image = np.zeros((1, splits.image_size, splits.image_size, 3), np.float32)
    return built, Trainee(model, built.model, find_sites(model, one_image))


def look_ahead(
    recipe: Recipe, splits: Splits, trainee: Trainee, replicas: Replicas = ALONE
) -> tuple[str, ...]:
    """What a person should know before the training. Raises InputError where the policy cannot be carried out."""
    steps, size = steps_per_epoch(recipe, splits), batch_size(recipe, splits)
    ahead = outlook(trainee, recipe.policy, recipe.stages, steps, size, images=splits.train.count)
    problems = [
        *ahead.problems,
        *uneven_batches(replicas, sizes_by_key(recipe.stages, recipe.data.batch_size, splits.train.count)),
    ]
    if problems:
        raise InputError(problems)
    return (*ahead.warnings, *replicas.notes)


def settled(prepared: Prepared) -> dict[str, str]:
    """What has to be the same in all workers."""
    recipe = prepared.recipe.model_dump(mode="json", exclude={"name", "tracking"})
    return {
        "recipe": json.dumps(recipe, sort_keys=True),
        "data": prepared.splits.digest,
        "weights": fingerprint(values_of(prepared.trainee.model.weights)),
    }


@contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """Compute in this precision inside the block; Keras' global setting is given back."""
    leave_accelerators_to_keras()
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.mixed_precision.set_dtype_policy(before)
