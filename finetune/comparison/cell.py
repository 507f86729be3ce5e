"""One cell: trained, proven and tested as `finetune run` does it, without the files that a run leaves."""

from __future__ import annotations

import functools
import gc
import tempfile
import time
from pathlib import Path

import keras
from pydantic import TypeAdapter

from finetune.comparison.outcome import Outcome
from finetune.datasets import AnyDataset
from finetune.datasets.base import Dataset, Splits
from finetune.datasets.batches import evaluation_batches
from finetune.errors import DivergedError, InputError
from finetune.evaluate import evaluate
from finetune.progress import Progress
from finetune.recipe import Recipe
from finetune.run import build, computing_in, prove
from finetune.stopwatch import Stopwatch
from finetune.tracking import Tracker
from finetune.training import EVALUATION_BATCH, Running, Trained, train


def carry_out(recipe: Recipe) -> Outcome:
    """What the recipe makes of the test images. What diverged or cannot be carried out is an outcome, too."""
    begun = time.perf_counter()
    try:
        outcome = _trained(recipe)
    except (DivergedError, InputError) as error:
        # what lay in the folder of the cell goes with it
        outcome = Outcome(failed=str(error).splitlines()[0].split("; the last good weights")[0])
    # the graphs of the last cell hold its network
    keras.backend.clear_session()
    gc.collect()
    return Outcome(**outcome.plain() | {"seconds": time.perf_counter() - begun})  # type: ignore[arg-type]


def sharing(recipe: Recipe) -> Recipe:
    """With the features of a backbone that stands still on disk, where all cells find them that have the same ones."""
    stages = [
        stage.model_copy(update={"cache_features": "disk"})
        if stage.train == "head" and stage.cache_features == "auto"
        else stage
        for stage in recipe.stages
    ]
    return recipe.model_copy(update={"stages": tuple(stages)})


def _trained(recipe: Recipe) -> Outcome:
    recipe = sharing(recipe)
    with computing_in(recipe.precision), tempfile.TemporaryDirectory(prefix="compare-") as folder:
        splits = _splits(recipe)
        keras.utils.set_random_seed(recipe.seed)
        built, trainee = build(recipe, splits)
        silent = Tracker(None, lambda words: None)
        running = Running(recipe, splits, built, trainee, Path(folder), silent, Progress(), Stopwatch())
        return _tested(running, train(running))


def _tested(running: Running, trained: Trained) -> Outcome:
    broken = [check.name for check in prove(running, trained) if not check.passed]
    if broken:
        return Outcome(failed=f"the policy did not hold: {', '.join(broken)}")
    model, splits = running.trainee.model, running.splits
    test, validation = (
        evaluate(model, evaluation_batches(split, EVALUATION_BATCH), len(splits.class_names))
        for split in (splits.test, splits.validation)
    )
    return Outcome(
        metrics=dict(test.metrics),
        validation_loss=validation.metrics["cross_entropy"],
        validation_accuracy=validation.metrics["accuracy"],
        validation_metrics=dict(validation.metrics),
        verified=True,
    )


def _splits(recipe: Recipe) -> Splits:
    size = recipe.data.image_size or recipe.backbone.default_image_size
    return _opened(recipe.data.model_dump_json(by_alias=True), size, recipe.seed)


@functools.lru_cache(maxsize=8)
def _opened(dataset: str, size: int, seed: int) -> Splits:
    """Once for all cells of a process that read the same images under the same seed."""
    opened: Dataset = TypeAdapter(AnyDataset).validate_json(dataset)
    return opened.load(size, seed)
