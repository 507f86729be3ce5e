"""Print the README's table of what each policy does, measured on a live model and never read off a flag.

The bundled backbone with a head trains a few steps on its own images, once a policy. Running statistics, gamma and beta
are compared bit by bit with what they were, site by site. What a site normalises with is found by changing the company
of one image and looking whether its prediction changes: in training with the flags that the policy left for `fit`, in
inference as a deployed model is called.

    uv run python scripts/policy_table.py
"""

from __future__ import annotations

import argparse
import datetime
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from finetune.batchnorm.sites import restored_settings
from finetune.batchnorm.timeline import Reading, read
from finetune.datasets.base import Splits
from finetune.datasets.batches import images_only, training_batches
from finetune.policies import POLICIES, Policy
from finetune.prepared import build
from finetune.recipe import Recipe
from finetune.recipe_file import load_recipe
from finetune.trained_part import Trainee, choose_trained

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "resnet_freeze.yaml"
BATCH, STEPS = 16, 4
COMPANY = 1e-3
"""In probability: a prediction that moves by more depends on the images beside it."""

HEADINGS = (
    "`policy:`",
    "statistics before the first stage",
    "statistics in training",
    "gamma and beta",
    "normalises with, in training",
    "in inference",
)


@dataclass(frozen=True)
class Row:
    """What happened to one network under one policy; the fields are those of HEADINGS."""

    policy: str
    at_start: str
    statistics: str
    affine: str
    in_training: str
    in_inference: str


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    recipe = load_recipe(RECIPE)
    splits = recipe.data.load(recipe.data.image_size or recipe.backbone.default_image_size, recipe.seed)
    print(markdown([measured(policy(), recipe, splits) for policy in POLICIES]))
    print(
        f"\n{datetime.date.today()}, Keras {keras.__version__} on {keras.backend.backend()}, {platform.machine()} CPU"
    )


def measured(policy: Policy, recipe: Recipe, splits: Splits) -> Row:
    """The life of a policy in a run, on a network of its own."""
    keras.utils.set_random_seed(0)
    _, trainee = build(recipe, splits)
    model, sites = trainee.model, trainee.sites
    pretrained = read(sites)
    policy.start(model, sites, partial(images_only, splits.calibration, BATCH))
    started = read(sites)
    with restored_settings(sites):
        in_training = trained(policy, trainee, recipe, splits)
    ended = read(sites)
    pair = images_of(splits)
    return Row(
        policy.policy,
        moved(pretrained, started, _statistics),
        moved(started, ended, _statistics),
        moved(pretrained, ended, _affine),
        in_training,
        normalises_with(lambda images: model(images, training=False), pair),
    )


def trained(policy: Policy, trainee: Trainee, recipe: Recipe, splits: Splits) -> str:
    """A few steps of `fit`; what the sites normalised with in them."""
    model = trainee.model
    inside = choose_trained(trainee, "everything")
    policy.prepare(trainee.sites, trained=inside, steps_per_epoch=STEPS)
    model.compile(keras.optimizers.SGD(0.003), "sparse_categorical_crossentropy")
    data = recipe.data.model_copy(update={"batch_size": BATCH})
    model.fit(training_batches(splits.train, data, recipe.seed).take(STEPS), verbose=0, shuffle=False)
    weights = model.get_weights()
    # what a forward pass in training mode moves is put back
    found = normalises_with(lambda images: model(images, training=True), images_of(splits))
    model.set_weights(weights)
    return found


def images_of(splits: Splits) -> tuple[np.ndarray, np.ndarray]:
    """Two batches of real images that share the first alone."""
    first, second = (np.asarray(batch) for batch in images_only(splits.validation, BATCH, limit=2 * BATCH))
    return first, np.concatenate([first[:1], 255.0 - second[1:]])


def normalises_with(predict: Callable[[Any], Any], pair: tuple[np.ndarray, np.ndarray]) -> str:
    """`batch` where the prediction for the first image depends on the others, else `running`."""
    here, there = (np.asarray(predict(images))[0] for images in pair)
    return "batch" if float(np.abs(here - there).max()) > COMPANY else "running"


def moved(
    before: Sequence[Reading], after: Sequence[Reading], values: Callable[[Reading], Sequence[Any]]
) -> str:
    """`moved at 53 of 53` or `fixed`: bit by bit."""
    different = sum(
        any(x.tobytes() != y.tobytes() for x, y in zip(values(a), values(b), strict=True))
        for a, b in zip(before, after, strict=True)
    )
    return f"moved at {different} of {len(before)}" if different else "fixed"


def _statistics(reading: Reading) -> Sequence[Any]:
    return reading.statistics.mean, reading.statistics.variance


def _affine(reading: Reading) -> Sequence[Any]:
    return reading.affine


def markdown(rows: Sequence[Row]) -> str:
    lines = [
        (f"`{r.policy}`", r.at_start, r.statistics, r.affine, r.in_training, r.in_inference) for r in rows
    ]
    first, *rest = ["| " + " | ".join(cells) + " |" for cells in (HEADINGS, *lines)]
    return "\n".join([first, "|" + "---|" * len(HEADINGS), *rest])


if __name__ == "__main__":
    main()
