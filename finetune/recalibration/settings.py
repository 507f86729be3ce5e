"""How a deployed model is recalibrated, where the default is not what is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from finetune.errors import InputError
from finetune.recalibration.shard import Shard

Method = Literal["layerwise", "one_pass"]
Statistics = Literal["auto", "plain", "matched"]


@dataclass(frozen=True)
class ImageSource:
    """Where images come from; exactly one is given. tfds: NAME:SPLIT."""

    folder: Path | None = None
    recipe: Path | None = None
    tfds: str | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.folder, self.recipe, self.tfds) if value is not None]
        if len(given) != 1:
            raise InputError(
                "expected one of --images DIR, --recipe RECIPE and --tfds NAME:SPLIT, "
                f"found {len(given) or 'none'}"
            )


@dataclass(frozen=True)
class Settings:
    """samples: images, at most. prior: N0, the images that the earlier statistics count as. memory: bytes of
    activations under layerwise. batch_size: images a batch where the model does not say; one_pass depends on it.
    statistics: auto is matched where reference statistics are known, and plain elsewhere. reference_images: source
    images to measure them on. labelled: the images have labels, and the gate may look at them. tolerance: the fall
    in accuracy that it accepts. force: the reason to publish against the gate. told: fields of
    finetune.recalibration.preprocessing.Preprocessing. signature: of a SavedModel. trust: run a Keras file's Lambdas.
    twin: the export of a Keras file, which it is measured through where its code is not here; left out, the one that
    lies beside it as saved_model/<n>. class_shares: of the images in service, which the gate expects; all alike where
    they are not given. refused: where the report goes if the gate refuses. shard: of the images that this process
    measures. meet: the folder where it meets those that measure the others. merged: moments of all shares, measured
    before, which are put in force in place of those of the images.
    """

    method: Method = "layerwise"
    statistics: Statistics = "auto"
    samples: int = 512
    prior: float = 0.0
    memory: int = 2_000_000_000
    batch_size: int = 64
    seed: int = 0
    labelled: bool = False
    tolerance: float = 0.01
    reference_images: Path | None = None
    force: str | None = None
    told: Mapping[str, Any] = field(default_factory=dict)
    signature: str | None = None
    trust: bool = False
    twin: Path | None = None
    class_shares: tuple[float, ...] | None = None
    refused: Path = Path("recalibration_refused.json")
    shard: Shard | None = None
    meet: Path | None = None
    merged: Path | None = None

    def __post_init__(self) -> None:
        limits = {"samples": 1, "batch_size": 1, "memory": 0, "prior": 0, "tolerance": 0}
        problems = [
            f"{name.replace('_', '-')}: expected {least} or more, found {getattr(self, name)}"
            for name, least in limits.items()
            if getattr(self, name) < least
        ]
        if self.force is not None and not self.force.strip():
            problems.append(
                "force: expected the reason why the gate is passed over, found nothing; it is recorded"
            )
        if self.meet is not None and self.shard is None:
            problems.append("meet: expected a share too (--shard I/N); without one there is nobody to meet")
        if self.merged is not None and (self.method != "one_pass" or self.shard is not None):
            problems.append(
                "statistics: merged shares are one_pass statistics of all images; "
                "say --method one_pass, and leave out --shard"
            )
        if problems:
            raise InputError(problems)

    @property
    def publishes(self) -> bool:
        """Of the shares of one set the first."""
        return self.shard is None or self.shard.number == 1
