"""What of a recipe asks for one class an image, where the data have images of several classes, or of none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from finetune.errors import InputError

if TYPE_CHECKING:
    from finetune.datasets.base import Splits
    from finetune.recipe import Recipe


def refuse_one_class_only(recipe: Recipe, splits: Splits) -> None:
    """Raises InputError with every key that multi-label data leave without a meaning."""
    if splits.multi_label and (problems := [*_of_one_class(recipe)]):
        raise InputError(problems)


def _of_one_class(recipe: Recipe) -> Iterator[str]:
    why = "the data are multi-label, and"
    if recipe.data.class_weights != "none":
        yield f"data.class_weights: {why} an image of several classes has no weight; compare by macro_f1 instead"
    if recipe.data.mix is not None:
        yield f"data.mix: {why} mixed labels are shares of one class each; leave it out"
    if recipe.head.weights == "pretrained":
        yield f"head.weights: {why} the pretrained classifier chooses one class of all; use new"
    if recipe.head.temperature == "fit":
        yield f"head.temperature: {why} one temperature is fitted for one class of all; leave it out"
    for number, stage in enumerate(recipe.stages):
        if stage.label_smoothing:
            yield f"stages[{number}].label_smoothing: {why} it spreads one label over all classes; leave it out"
