"""Going on with a run that was broken off."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from finetune.distribution.agreement import refuse_unlike
from finetune.distribution.lost import again, loss_in_words
from finetune.distribution.replicas import open_replicas
from finetune.errors import InputError
from finetune.prepared import computing_in, prepare, settled
from finetune.progress import Progress
from finetune.recipe import Recipe
from finetune.recipe_file import load_recipe
from finetune.result import RunResult
from finetune.run import carry_out
from finetune.run_state import held, resumable_state
from finetune.stopwatch import Stopwatch
from finetune.tracking import store_uri


def resume(folder: Path, *, tracking_uri: str | None = None, progress: Progress | None = None) -> RunResult:
    """Go on with a run that was broken off, at the step of its last checkpoint, in the same MLflow run.

    On a CPU it ends bit by bit as it would have without the break, unless a layer of the network draws random numbers
    that have no state of their own (keras-cv's StochasticDepth). Raises InputError where there is nothing to go on
    with, another process is at work there, or the data are others; otherwise as `run`.
    """
    progress, watch = progress or Progress(), Stopwatch()
    resumable_state(folder)
    recipe = recipe_of(folder, tracking_uri)
    replicas = open_replicas(recipe.distribute, hear=progress.phase)
    progress = progress if replicas.chief else Progress()
    with held(folder) if replicas.chief else nullcontext():
        state = resumable_state(folder)
        store = store_uri(tracking_uri or recipe.tracking.uri) if recipe.tracking.enabled else None
        with computing_in(recipe.precision), replicas.scope(), loss_in_words(replicas, again(folder)):
            prepared = prepare(recipe, progress, watch, replicas)
            if prepared.splits.digest != state.data:
                raise InputError(
                    f"{folder}: the data are not those that the run began with; put them back, or start it anew"
                )
            refuse_unlike(replicas, settled(prepared))
            next_one = replace(state, sittings=state.sittings + 1)
            return carry_out(prepared, folder, next_one, store, progress, watch)


def recipe_of(folder: Path, tracking_uri: str | None) -> Recipe:
    """That of an earlier sitting. Raises InputError where it is not there, or misses a password that is not kept."""
    path = folder / "recipe.yaml"
    if not path.is_file():
        raise InputError(f"{path}: missing; put back the recipe that the run began with, or start it anew")
    recipe = load_recipe(path)
    if recipe.tracking.uri and "***" in recipe.tracking.uri and not tracking_uri:
        raise InputError(
            f"{path}: passwords are not kept in it; say the whole {recipe.tracking.uri} with --tracking-uri"
        )
    return recipe
