"""The command line. It answers before TensorFlow would be imported: commands import what only they need."""

from __future__ import annotations

import errno
import sys

import typer

from finetune.cli import (
    catalogue,
    comparing,
    copying,
    deployed,
    doctoring,
    drifting,
    evaluating,
    exporting,
    importing,
    looking,
    probing,
    rating,
    recipes,
    running,
    sharing,
    starting,
    syncing,
    versions,
    viewing,
)
from finetune.errors import FinetuneError, InputError

EPILOG = """\b
Exit codes: 0 ok, 1 failure, 2 bad input, 3 drift above the threshold,
4 the gate refused, 5 the policy did not hold, 6 the training diverged,
130 interrupted.

\b
Start here:
  finetune init FOLDER
  finetune run recipes/resnet_freeze.yaml
  finetune ui
"""

app = typer.Typer(
    name="finetune",
    help="Fine-tune pretrained vision networks with the BatchNorm decision explicit, proven and repairable.",
    epilog=EPILOG,
    no_args_is_help=True,
    # rich's markup costs 0.3 s at every --help
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(starting.init)
app.command()(copying.cp)
app.command()(looking.data)
app.command()(probing.probe)
app.command()(rating.rates)
app.command()(running.run)
app.command()(comparing.compare)
app.command()(doctoring.doctor)
app.command()(recipes.check)
app.command()(recipes.show)
app.command("list")(catalogue.list_)
app.command()(recipes.schema)
app.command()(evaluating.evaluate)
app.command("import")(importing.import_)
app.command()(exporting.export)
app.command()(deployed.recalibrate)
app.command("merge-statistics")(sharing.merge_statistics)
app.command()(drifting.drift)
app.command()(versions.history)
app.command()(versions.rollback)
app.command()(syncing.sync)
app.command()(viewing.ui)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"finetune {version('finetune')}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show it and leave."
    ),
) -> None:
    pass


def main() -> None:
    """Run the command line; what is the person's to act on is said in words, with the exit code of its kind."""
    try:
        app(prog_name="finetune")
    except FinetuneError as error:
        problems = error.problems if isinstance(error, InputError) else [str(error)]
        for problem in problems:
            typer.echo(f"error: {problem}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" for {error.filename}" if error.filename else ""
        typer.echo(f"error: no space left{where}; make room and run it again", err=True)
        sys.exit(InputError.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
