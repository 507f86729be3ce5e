"""`finetune export`."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.cli.deployed_options import Scale
from finetune.cli.options import AsJson
from finetune.cli.quiet import import_quietly
from finetune.cli.sizes import in_words
from finetune.cli.watching import progress_for

if TYPE_CHECKING:
    from finetune.conversion import Converted


class Quantize(StrEnum):
    """What becomes of the weights of a .tflite file."""

    no = "no"
    float16 = "float16"
    dynamic = "dynamic"


def export(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A run folder, a .keras file or a folder of versions.")
    ],
    onnx: Annotated[Path | None, typer.Option(metavar="FILE", help="Write ONNX (extra onnx).")] = None,
    tflite: Annotated[Path | None, typer.Option(metavar="FILE", help="Write TensorFlow Lite.")] = None,
    savedmodel: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a SavedModel that takes float32 images.")
    ] = None,
    recalibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Measure the statistics anew on these pictures first, behind the gate."
        ),
    ] = None,
    scale: Scale = None,
    force: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Take the recalibrated model though the gate refuses."),
    ] = None,
    quantize: Annotated[
        Quantize, typer.Option(help="Weights of the .tflite file: float16, or 8 bits (dynamic).")
    ] = Quantize.no,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show the result only.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a fine-tuned model for another runtime, checked against the original.

    Converters fold BN into the weights, and nobody can measure its statistics
    anew afterwards: do it before, with --recalibrate.

    \b
    finetune export runs/resnet_freeze-1 --onnx shirts.onnx
    finetune export runs/resnet_freeze-1 --tflite shirts.tflite --quantize float16
    finetune export models/shirts --recalibrate today/ --onnx shirts.onnx --json
    """
    wanted = {"onnx": onnx, "tflite": tflite, "savedmodel": savedmodel}
    progress = progress_for(quiet)
    progress.phase("importing TensorFlow")
    import_quietly()
    from finetune.conversion_run import export_model
    from finetune.recalibration.settings import Settings

    done = export_model(
        model,
        {kind: path for kind, path in wanted.items() if path is not None},
        images=recalibrate,
        settings=Settings(told={"scale": scale}, force=force),
        quantized=quantize.value,
        progress=progress,
    )
    typer.echo(json.dumps([plain(each) for each in done], indent=2) if as_json else summary(done))


def summary(done: list[Converted]) -> str:
    lines = []
    for each in done:
        agree = each.images - each.changed
        lines.append(
            f"{each.kind:10}  {each.path}  {in_words(each.size)}; differs by {each.apart:.1e} in probability at most, "
            f"same class for {agree} of {each.images} images"
        )
    return "\n".join(lines)


def plain(each: Converted) -> dict[str, object]:
    return {
        "kind": each.kind,
        "path": str(each.path),
        "bytes": each.size,
        "largest_difference": each.apart,
        "images": each.images,
        "changed": each.changed,
    }
