"""`finetune run`."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.cli.options import AsJson, Set, TrackingUri
from finetune.cli.quiet import import_quietly
from finetune.cli.watching import progress_for
from finetune.distribution.cluster import VARIABLE, cluster_of
from finetune.errors import InputError, Interrupted
from finetune.interruption import comes_again

if TYPE_CHECKING:
    from finetune.progress import Progress
    from finetune.result import RunResult


INTERRUPTED = 130


def run(
    recipe: Annotated[
        Path | None, typer.Argument(help="The recipe, a YAML file.", show_default=False)
    ] = None,
    set_: Set = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    name: Annotated[str | None, typer.Option(help="Instead of the recipe's.")] = None,
    runs_dir: Annotated[Path, typer.Option(help="Folder that the run folder is made in.")] = Path("runs"),
    resume: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Go on with the run in this folder, instead of a recipe."),
    ] = None,
    tracking_uri: TrackingUri = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show the summary only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune as a recipe says, and prove its policy.

    Leaves a report, a model and an MLflow run. Ctrl-C ends it at the next step of the training, a second one at once;
    --resume goes on.

    \b
    finetune run recipes/resnet_freeze.yaml
    finetune run recipes/resnet_freeze.yaml --set stages.0.epochs=1 --set data.shift.kind=noise
    finetune run recipes/resnet_retrain.yaml --seed 3 --name third --json > result.json
    finetune run --resume runs/resnet_freeze-1
    """
    result = (
        _resumed(resume, [recipe, set_, seed, name], tracking_uri, quiet)
        if resume
        else _begun(recipe, _overrides(set_, seed, name), runs_dir, tracking_uri, quiet)
    )
    if _accompanied(result):
        return
    from finetune.cli.summary import as_plain, summary

    typer.echo(json.dumps(as_plain(result), indent=2) if as_json else summary(result))


def _accompanied(result: RunResult) -> bool:
    """Whether another process is the one that tells what was found out; says where."""
    distribute = result.recipe.get("distribute")
    if not distribute or distribute["strategy"] != "multi_worker":
        return False
    cluster = cluster_of(os.environ)
    if not cluster.chief:
        typer.echo(
            f"{cluster}: done; the run is in {result.folder}, where the first worker wrote it", err=True
        )
    return not cluster.chief


def _overrides(set_: list[str] | None, seed: int | None, name: str | None) -> list[str]:
    extra = [] if seed is None else [f"seed={seed}"]
    # as JSON text, which is YAML as well: a name of digits stays text
    extra += [] if name is None else [f"name={json.dumps(name)}"]
    return [*(set_ or []), *extra]


def _begun(
    recipe: Path | None, overrides: list[str], runs_dir: Path, tracking_uri: str | None, quiet: bool
) -> RunResult:
    from finetune.recipe_file import load_recipe

    if recipe is None:
        raise InputError(
            "finetune run: expected a RECIPE, or --resume FOLDER; `finetune list recipes` shows some"
        )
    loaded = load_recipe(recipe, overrides)
    if loaded.distribute and loaded.distribute.strategy == "multi_worker":
        # what is wrong with TF_CONFIG is said at once; all but the first worker are quiet
        quiet = quiet or not cluster_of(os.environ).chief
    progress = _importing(quiet)
    if os.environ.get(VARIABLE) and not loaded.distribute:
        progress.note(
            f"{VARIABLE} is set, and the recipe has no distribute: this process trains alone; "
            "--set distribute.strategy=multi_worker shares every batch among the workers that it names"
        )
    from finetune.run import run as carry_out

    with interruptible():
        return carry_out(loaded, runs_folder=runs_dir, tracking_uri=tracking_uri, progress=progress)


def _resumed(folder: Path, otherwise: Sequence[object], tracking_uri: str | None, quiet: bool) -> RunResult:
    if any(each is not None for each in otherwise):
        raise InputError(
            f"--resume {folder}: the recipe lies in the folder and cannot change on the way; leave out RECIPE, --set, "
            "--seed and --name, or start a new run without --resume"
        )
    from finetune.run_state import resumable_state

    resumable_state(folder)
    progress = _importing(quiet)
    from finetune.resumption import resume as go_on

    with interruptible():
        return go_on(folder, tracking_uri=tracking_uri, progress=progress)


def _importing(quiet: bool) -> Progress:
    """From here on it takes seconds: Keras is imported."""
    progress = progress_for(quiet)
    progress.phase("importing TensorFlow")
    import_quietly(any_backend=True)
    return progress


@contextmanager
def interruptible() -> Iterator[None]:
    """What a batch queue sends before it kills is taken like Ctrl-C; either way the line that goes on is printed.

    A training has the first of them wait for its next step (finetune/interruption.py).
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with comes_again(signal.SIGTERM):
            yield
    except Interrupted as stopped:
        typer.echo(str(stopped), err=True)
        # typer would print "Aborted!" and nothing else
        raise typer.Exit(INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGTERM, before)
