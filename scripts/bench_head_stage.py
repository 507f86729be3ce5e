"""What a stage that trains only the head costs after its first epoch, with its features cached and without.

Both sides alternate in one process, each with a network built anew: the bundled backbone on 1,000 images of
fashion_shift in fog with 500 for validation, trained through Keras' `fit` with the trainer's own callbacks. The
first epoch counts from the first line of the stage, so it holds the features and the compilation.

    uv run python scripts/bench_head_stage.py --rounds 5
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from statistics import median
from typing import Any

# as the command line does, read when TensorFlow is imported (finetune/cli/quiet.py)
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import numpy as np

from finetune.assemble import assemble
from finetune.batchnorm.sites import find_sites
from finetune.callbacks import BestWeights, DivergenceWatch, EpochLog
from finetune.compiling import compile_stage
from finetune.datasets.base import Splits
from finetune.datasets.batches import evaluation_batches, training_batches
from finetune.feature_cache import ImageSource, cached_head_stage
from finetune.policies import Freeze
from finetune.progress import Progress
from finetune.recipe import Recipe
from finetune.recipe_file import load_recipe
from finetune.stage import Stage
from finetune.trained_part import Trainee, choose_trained

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "resnet_freeze.yaml"
EVALUATION_BATCH = 128


def main() -> None:
    options = arguments()
    recipe = load_recipe(RECIPE, options.set)
    splits = recipe.data.load(recipe.backbone.default_image_size, recipe.seed)
    read_once(splits)
    stage = Stage(train="head", epochs=options.epochs, learning_rate=0.1)
    shares: dict[bool, list[float]] = {True: [], False: []}
    for number in range(options.rounds):
        for cached in (True, False):
            seconds = one_stage(recipe, splits, stage, cached=cached)
            later = median(seconds[1:])
            shares[cached].append(later / seconds[0])
            print(
                f"round {number + 1}, {name(cached)}: first epoch {seconds[0]:.2f} s, later {later:.3f} s "
                f"({min(seconds[1:]):.3f} to {max(seconds[1:]):.3f})"
            )
    for cached, found in shares.items():
        print(f"{name(cached)}: later / first {median(found):.2%} ({min(found):.2%} to {max(found):.2%})")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument(
        "--set", action="append", default=[], help="as in finetune run: data.train=train[:200]"
    )
    return parser.parse_args()


def name(cached: bool) -> str:
    return "cached" if cached else "uncached"


def read_once(splits: Splits) -> None:
    """The images stay in memory after their first reading; neither side is to pay for it."""
    for split in (splits.train, splits.validation):
        for _ in evaluation_batches(split, EVALUATION_BATCH):
            pass


def one_stage(recipe: Recipe, splits: Splits, stage: Stage, *, cached: bool) -> list[float]:
    """Seconds of every epoch, validation included; the first from the beginning of the stage."""
    trainee, steps = network(recipe, splits), splits.train.count // recipe.data.batch_size
    clock = EpochClock()
    Freeze().prepare(trainee.sites, trained=choose_trained(trainee, "head"), steps_per_epoch=steps)
    model = trainee.model
    if cached:
        source = ImageSource(splits, recipe.data, recipe.seed, EVALUATION_BATCH)
        head_stage = cached_head_stage(model, trainee.backbone, source, "memory")
        model, training, validation = head_stage.head, head_stage.training, head_stage.validation
    else:
        training = training_batches(splits.train, recipe.data, recipe.seed)
        validation = evaluation_batches(splits.validation, EVALUATION_BATCH)
    compile_stage(model, stage, steps * stage.epochs)
    watch = DivergenceWatch("stage 1 of 1", steps, len(splits.class_names))
    log = EpochLog(Progress(), lambda epoch, metrics: None)
    callbacks = [watch, log, BestWeights(None), clock]
    model.fit(
        training,
        validation_data=validation,
        epochs=stage.epochs,
        callbacks=callbacks,
        verbose=0,
        shuffle=False,
    )
    return list(np.diff(clock.times))


def network(recipe: Recipe, splits: Splits) -> Trainee:
    keras.backend.clear_session()
    keras.utils.set_random_seed(recipe.seed)
    built = recipe.backbone.build(splits.image_size)
    model = assemble(built, recipe.head, splits.class_names, splits.image_size)
    one_image = np.zeros((1, splits.image_size, splits.image_size, 3), np.float32)
    return Trainee(model, built.model, find_sites(model, one_image))


class EpochClock(keras.callbacks.Callback):
    """When the stage began, and when each epoch was over."""

    def __init__(self) -> None:
        super().__init__()
        self.times = [time.perf_counter()]

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.times.append(time.perf_counter())


if __name__ == "__main__":
    main()
