"""Arguments of the commands for models in service: the model, the images, and how it wants them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from finetune.recalibration.settings import ImageSource

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A SavedModel, .keras, .h5 or .onnx file, a folder of numbered versions, "
        "or in MLflow models:/NAME@ALIAS or runs:/ID/MODEL.",
    ),
]
Folder = Annotated[Path | None, typer.Option("--images", metavar="DIR", help="Pictures of today.")]
OfRecipe = Annotated[
    Path | None, typer.Option("--recipe", metavar="RECIPE", help="Its calibration images instead.")
]
OfTfds = Annotated[str | None, typer.Option("--tfds", metavar="NAME:SPLIT", help="A TFDS dataset's instead.")]
Samples = Annotated[int, typer.Option(help="Images, at most.")]
ImageSize = Annotated[int | None, typer.Option(metavar="PX", help="Side, where the model does not say.")]
Scale = Annotated[
    str | None,
    typer.Option(metavar="SCALE", help="none, unit, -1..1, imagenet or caffe, where the model does not say."),
]
Order = Annotated[
    str | None, typer.Option("--channel-order", metavar="ORDER", help="rgb (default), bgr or grey.")
]
Layout = Annotated[
    str | None, typer.Option(metavar="LAYOUT", help="nhwc or nchw, where the model does not say.")
]
Signature = Annotated[
    str | None, typer.Option(metavar="NAME", help="Of a SavedModel; serving_default if left out.")
]
Trust = Annotated[bool, typer.Option("--trust", help="Run Lambda layers of a Keras file: its author's code.")]
Twin = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="SavedModel exported from a Keras file, to measure it without its code."
    ),
]
Share = Annotated[
    str | None, typer.Option(metavar="I/N", help="Measure this share only, one of N processes.")
]
Meet = Annotated[
    Path | None, typer.Option(metavar="DIR", help="With --shard: a folder that all shares see; 1 publishes.")
]
StatisticsFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="With --shard: where its share goes. Alone: merged shares to put in force."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show the result only.")]


def image_source(images: Path | None, recipe: Path | None, tfds: str | None) -> ImageSource:
    """Raises InputError where it is not one of them."""
    from finetune.recalibration.settings import ImageSource

    return ImageSource(images, recipe, tfds)


def preprocessing_told(
    size: int | None, scale: str | None, order: str | None, layout: str | None
) -> dict[str, Any]:
    """What a person says of how the model wants its images."""
    return {"image_size": size, "scale": scale, "order": order, "layout": layout}
