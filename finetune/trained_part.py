"""Which part of a model a stage trains: the head, everything, or the backbone from one layer on."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import keras

from finetune.batchnorm.sites import BNSite
from finetune.errors import InputError

if TYPE_CHECKING:
    from finetune.stage import FromLayer


@dataclass(frozen=True, eq=False)
class Trainee:
    """A model under training: the joined model, its backbone inside it, its sites."""

    model: keras.Model
    backbone: keras.Model
    sites: Sequence[BNSite]


def choose_trained(trainee: Trainee, train: str | FromLayer) -> list[BNSite]:
    """Set which layers train: the head, everything, or the backbone from one layer on and the head.

    Returns the sites that are inside. The policy comes after: this sets every site inside trainable.
    """
    _set_trainable(trainee.model, True)
    for layer in kept_layers(trainee.backbone, train):
        _set_trainable(layer, False)
    return [site for site in trainee.sites if site.layer.trainable]


def _set_trainable(layer: keras.Layer, value: bool) -> None:
    """On every layer below by itself: `layer.trainable = value` recurses only where the value changes."""
    for each in layer._flatten_layers():
        each.trainable = value


def kept_layers(backbone: keras.Model, train: str | FromLayer) -> Sequence[keras.Layer]:
    """The layers of the backbone that a stage does not train. Raises InputError where there is no such layer."""
    if train == "everything":
        return ()
    if train == "head":
        return (backbone,)
    pattern = train if isinstance(train, str) else train.layer
    names = [layer.name for layer in backbone.layers]
    first = next((i for i, name in enumerate(names) if fnmatch.fnmatchcase(name, pattern)), None)
    if first is None:
        raise InputError(
            f"stages: train from {pattern!r}: the backbone {backbone.name} has no such layer; "
            f"it has {', '.join(names[:6])}, ... {names[-1]} ({len(names)} layers; * and ? are understood)"
        )
    return backbone.layers[:first]
