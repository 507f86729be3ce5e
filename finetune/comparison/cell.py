"""One cell: trained, proven and tested as `finetune run` does it, without the files that a run leaves."""

from __future__ import annotations

import gc
import tempfile
import time
from pathlib import Path

from finetune.comparison.outcome import Outcome
from finetune.comparison.workshop import Workshop
from finetune.datasets.batches import evaluation_batches
from finetune.errors import DivergedError, InputError
from finetune.evaluate import evaluate
from finetune.prepared import computing_in
from finetune.progress import Progress
from finetune.recipe import Recipe
from finetune.run import prove
from finetune.stopwatch import Stopwatch
from finetune.tracking import Tracker
from finetune.training import EVALUATION_BATCH, Running, Trained, train


def carry_out(recipe: Recipe, workshop: Workshop | None = None) -> Outcome:
    """What the recipe makes of the test images. What diverged or cannot be carried out is an outcome, too.

    workshop: of the process; all but the seconds are the same, to the bit, as without one.
    """
    begun = time.perf_counter()
    try:
        outcome = _trained(recipe, workshop or Workshop())
    except (DivergedError, InputError) as error:
        # what lay in the folder of the cell goes with it
        outcome = Outcome(failed=str(error).splitlines()[0].split("; the last good weights")[0])
    # models and optimizers lie in circles
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


def _trained(recipe: Recipe, workshop: Workshop) -> Outcome:
    recipe = sharing(recipe)
    workshop.clear(recipe)
    with computing_in(recipe.precision), tempfile.TemporaryDirectory(prefix="compare-") as folder:
        splits = workshop.splits(recipe)
        built, trainee = workshop.network(recipe, splits)
        silent = Tracker(None, lambda words: None)
        running = Running(recipe, splits, built, trainee, Path(folder), silent, Progress(), Stopwatch())
        return _tested(running, train(running))


def _tested(running: Running, trained: Trained) -> Outcome:
    model, splits = running.trainee.model, running.splits
    # by a graph that is kept: to call the network operation by operation takes as long as a dozen batches
    checks = prove(running, trained, model.predict_on_batch)
    broken = [check.name for check in checks if not check.passed]
    if broken:
        return Outcome(failed=f"the policy did not hold: {', '.join(broken)}")
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
