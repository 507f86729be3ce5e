"""`finetune merge-statistics`: shares of one calibration set that processes measured apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.cli.options import AsJson

if TYPE_CHECKING:
    from finetune.batchnorm.moments_file import SavedMoments


def merge_statistics(
    parts: Annotated[
        list[Path], typer.Argument(metavar="PART...", help="What --shard I/N --statistics PART wrote.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the moments of all of them go.")],
    as_json: AsJson = False,
) -> None:
    """Put together what several processes measured.

    Each wrote the moments of its share with recalibrate --shard I/N --statistics.
    No image and no model is needed here.

    \b
    finetune merge-statistics part-*.npz --out merged.npz
    finetune recalibrate models/shirts --images sample/ --method one_pass --statistics merged.npz
    """
    from finetune.recalibration.merged_shares import merge_files

    typer.echo(share_in_words(merge_files(parts, out), out, as_json))


def share_in_words(saved: SavedMoments, file: Path, as_json: bool) -> str:
    """What a file of moments holds."""
    if as_json:
        return json.dumps({"file": str(file), "images": saved.images, "sites": list(saved.moments)}, indent=2)
    return f"{file}: moments of {len(saved.moments)} sites on {saved.images} images"
