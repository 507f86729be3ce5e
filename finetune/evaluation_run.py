"""Measure a model that a run left behind, on its own test split or under another camera."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.backbones.keras_file import read_model
from finetune.datasets.batches import evaluation_batches
from finetune.errors import InputError
from finetune.evaluate import evaluate
from finetune.recipe_file import load_recipe

if TYPE_CHECKING:
    import keras

    from finetune.datasets.base import Splits
    from finetune.result import Evaluation

BATCH = 128


def evaluate_saved(model: Path, *, recipe: Path | None = None, overrides: Sequence[str] = ()) -> Evaluation:
    """The test split of a recipe under the model in a run folder or .keras file.

    recipe: the one beside the model where left out. Raises InputError where the model, the recipe or
    their agreement on classes and image size is wanting.
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
    return evaluate(network, evaluation_batches(splits.test, BATCH), len(splits.class_names))


def require_classes(file: Path, network: keras.Model, splits: Splits) -> None:
    given, wanted = int(network.output_shape[-1]), len(splits.class_names)
    if given != wanted:
        raise InputError(
            f"{file}: the model tells {given} classes apart, the recipe's data have {wanted}; "
            "name the recipe it was trained with (--recipe)"
        )
