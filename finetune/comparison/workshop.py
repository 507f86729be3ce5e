"""What a process keeps from one cell to the next: images in memory, a network, its graphs. No cell can tell."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from finetune.backbones.base import BuiltBackbone
from finetune.comparison.graph_kind import decides_graphs
from finetune.comparison.kept_graphs import KeepsGraphs
from finetune.comparison.seeding import set_seeds
from finetune.datasets.base import Splits
from finetune.prepared import build
from finetune.recipe import Recipe
from finetune.trained_part import Trainee

IN_MEMORY = 4
"""Data sets whose images stay in memory."""

PLAIN = ("keras", "keras_cv", "keras_hub", "finetune")
"""Packages whose layers hold all that they remember in variables."""


@dataclass(frozen=True, eq=False)
class Beginning:
    """What a build under one seed leaves: the values of all variables, and where the random numbers are."""

    values: Sequence[NDArray[Any]]
    drawn: tuple[Any, Any]


@dataclass(eq=False)
class KeptNetwork:
    """A network that is built once, and how it begins under each seed."""

    built: BuiltBackbone
    trainee: Trainee
    beginnings: dict[int, Beginning]

    def begin(self, seed: int) -> None:
        """As if it had just been built under this seed."""
        beginning = self.beginnings[seed]
        for variable, value in zip(self.trainee.model.variables, beginning.values, strict=True):
            variable.assign(value)
        random.setstate(beginning.drawn[0])
        np.random.set_state(beginning.drawn[1])


@dataclass(eq=False)
class Workshop:
    """For cells that are trained one after the other. Its network is that of the latest cell."""

    _splits: dict[str, Splits] = field(default_factory=dict)
    _digests: dict[str, str] = field(default_factory=dict)
    _network: dict[str, KeptNetwork] = field(default_factory=dict)

    def clear(self, recipe: Recipe) -> None:
        """Before a cell: drop the network that it has no use for."""
        if _made_of(recipe) not in self._network:
            self._network.clear()
            # the names of layers begin anew, so that the features of equal networks are found again
            keras.backend.clear_session()

    def splits(self, recipe: Recipe) -> Splits:
        """Those of the recipe; where two seeds read the same images, they share those in memory."""
        size = recipe.data.image_size or recipe.backbone.default_image_size
        asked = json.dumps([recipe.data.model_dump(mode="json"), size, recipe.seed])
        known = self._splits.pop(self._digests.get(asked, ""), None)
        if known is None:
            opened = recipe.data.load(size, recipe.seed)
            known = self._splits.pop(opened.digest, opened)
        # the latest stays last
        self._splits[known.digest] = known
        self._digests[asked] = known.digest
        if len(self._splits) > IN_MEMORY:
            del self._splits[next(iter(self._splits))]
        return known

    def network(self, recipe: Recipe, splits: Splits) -> tuple[BuiltBackbone, Trainee]:
        """As `build` gives it under the recipe's seed, bit for bit."""
        kept = self._network.get(_made_of(recipe))
        if kept is None:
            keras.utils.set_random_seed(recipe.seed)
            built, trainee = build(recipe, splits)
            if not _plain(trainee.model):
                return built, trainee
            trainee = replace(trainee, model=KeepsGraphs(trainee.model))
            kept = KeptNetwork(built, trainee, {recipe.seed: _beginning(trainee.model)})
            self._network[_made_of(recipe)] = kept
        else:
            set_seeds(recipe.seed)
        if recipe.seed not in kept.beginnings:
            _, other = build(recipe, splits)
            first = next(iter(kept.beginnings.values())).values
            kept.beginnings[recipe.seed] = _beginning(other.model, first)
        kept.begin(recipe.seed)
        kept.trainee.model.trained_under(recipe)
        return kept.built, kept.trainee


def _made_of(recipe: Recipe) -> str:
    """All that a network, and whether it can be built at all, depends on, but for the seed."""
    plain = decides_graphs(recipe)
    del plain["batchnorm"]
    return json.dumps(plain)


def _plain(model: keras.Model) -> bool:
    """Whether nothing of it can remember the last cell but its variables."""
    return all(
        type(layer).__module__.partition(".")[0] in PLAIN and not isinstance(layer, keras.layers.Lambda)
        for layer in model._flatten_layers()
    )


def _beginning(model: keras.Model, like: Sequence[NDArray[Any]] = ()) -> Beginning:
    """like: values of another beginning; those that are equal take no memory of their own."""
    values = [np.array(keras.ops.convert_to_numpy(variable)) for variable in model.variables]
    if like:
        values = [
            same if same.tobytes() == value.tobytes() else value
            for same, value in zip(like, values, strict=True)
        ]
    return Beginning(values, (random.getstate(), np.random.get_state()))
