"""Graphs that measure a model, made once where the model keeps them; any other makes them for each measurement."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from finetune.batchnorm.layerwise import Network, Segment
from finetune.batchnorm.plan import Dataflow

Made = TypeVar("Made")


def keeps_graphs(model: Any) -> bool:
    """Whether it has a dictionary `kept_graphs`; such a model changes in the values of its variables only."""
    return getattr(model, "kept_graphs", None) is not None


def kept_or_made(model: Any, key: Hashable, make: Callable[[], Made]) -> Made:
    """What `make` gives, once for each key where the model keeps its graphs."""
    if not keeps_graphs(model):
        return make()
    if key not in model.kept_graphs:
        model.kept_graphs[key] = make()
    found: Made = model.kept_graphs[key]
    return found


@dataclass(frozen=True, eq=False)
class KeptPieces:
    """A network that is cut in the same places again and again, each piece made once."""

    network: Network
    _pieces: dict[Hashable, Segment] = field(default_factory=dict)

    @property
    def dataflow(self) -> Dataflow:
        return self.network.dataflow

    def segment(
        self, feeds: Sequence[str], keeps: Sequence[str], sites: Sequence[int], *, precise: bool
    ) -> Segment:
        key = (tuple(feeds), tuple(keeps), tuple(sites), precise)
        if key not in self._pieces:
            self._pieces[key] = self.network.segment(feeds, keeps, sites, precise=precise)
        return self._pieces[key]
