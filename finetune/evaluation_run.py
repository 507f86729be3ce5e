"""Measure a model that a run left behind, on its own test split or under another camera."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.backbones.keras_file import read_model
from finetune.datasets.augmentation_layers import augmented
from finetune.datasets.batches import evaluation_batches
from finetune.errors import InputError
from finetune.evaluate import evaluate, evaluate_views
from finetune.recipe_file import load_recipe

if TYPE_CHECKING:
    import keras

    from finetune.datasets.base import Splits
    from finetune.result import Evaluation

BATCH = 128


def evaluate_saved(
    model: Path, *, recipe: Path | None = None, overrides: Sequence[str] = (), views: int = 1
) -> Evaluation:
    """The test split of a recipe under the model in a run folder or .keras file.

    recipe: the one beside the model where left out. views: of each image, the plain one and draws of the recipe's
    augmentation, whose probabilities are averaged. Raises InputError where the model, the recipe or their agreement on
    classes and image size is wanting, and where views are asked for and the recipe augments nothing.
    """
    file = model / "model.keras" if model.is_dir() else model
    if not file.is_file():
        raise InputError(
            f"{model}: expected a run folder with a model.keras in it, or a .keras file; found neither (of models in "
            "other formats `finetune recalibrate MODEL --images DIR --labelled --dry-run` tells the accuracy)"
        )
    beside = file.parent / "recipe.yaml"
    if recipe is None and not beside.is_file():
        raise InputError(
            f"{model}: no recipe.yaml beside the model says which data it is for; name one with --recipe"
        )
    loaded = load_recipe(recipe or beside, overrides)
    network = read_model(file)
    size = int(network.input_shape[1])
    splits = loaded.data.load(size, loaded.seed)
    require_classes(file, network, splits)
    batches = evaluation_batches(splits.test, BATCH)
    if views == 1:
        return evaluate(network, batches, len(splits.class_names))
    if not loaded.data.augment:
        raise InputError(
            "--views: more than one view of an image needs an augmentation to draw them from; name one with "
            "--set data.augment=[{layer: RandomFlip}]"
        )
    drawn = [augmented(batches, loaded.data.augment, size, draw) for draw in range(views - 1)]
    return evaluate_views(network, [batches, *drawn], len(splits.class_names))


def require_classes(file: Path, network: keras.Model, splits: Splits) -> None:
    given, wanted = int(network.output_shape[-1]), len(splits.class_names)
    if given != wanted:
        raise InputError(
            f"{file}: the model tells {given} classes apart, the recipe's data have {wanted}; "
            "name the recipe it was trained with (--recipe)"
        )
