"""`finetune import`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from finetune.cli.options import AsJson
from finetune.cli.quiet import import_quietly


def import_(
    weights: Annotated[
        Path, typer.Argument(metavar="FILE", help="A PyTorch state dict (.pth, .pt), read without PyTorch.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="NAME.keras in this folder if left out.")
    ] = None,
    image_size: Annotated[int, typer.Option(metavar="PX", min=32, help="Side of the images.")] = 224,
    as_json: AsJson = False,
) -> None:
    """Take a PyTorch backbone along: a ResNet or MobileNetV2 of torchvision or timm.

    The network is read off the state dict; nothing in the file is run. Momentum,
    epsilon and padding become Keras', and the outputs stay what they were.

    \b
    finetune import resnet50.pth
    finetune import mobilenet_v2.pth --image-size 160 --out backbones/mobile.keras
    finetune import resnet50.pth --json
    """
    import_quietly()
    from finetune.import_run import import_weights

    done = import_weights(weights, out or Path(f"{weights.stem}.keras"), image_size)
    if as_json:
        typer.echo(json.dumps(asdict(done) | {"path": str(done.path)}, indent=2))
        return
    typer.echo(
        f"{done.layout}: {done.sites} BN sites, {done.parameters:,} parameters, {done.classes} classes\n"
        f"model   {done.path}\n"
        f"recipe  backbone: {{source: saved, path: {done.path}, scale: imagenet}}"
    )
