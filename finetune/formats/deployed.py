"""A model in service, whatever file it lies in: sites, what they see, predictions, a copy with other statistics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from numpy.typing import NDArray

from finetune.batchnorm.layerwise import Network
from finetune.batchnorm.matching import Affine
from finetune.batchnorm.moments import PopulationMoments, RunningStatistics

Batch = Mapping[str, NDArray]
"""By name of the model's input: (batch, ...)."""


@dataclass(frozen=True)
class InputSpec:
    """One input. shape: with the batch first, None where it is open; None as a whole where the rank is unknown.

    dtype: NumPy's name.
    """

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str


class DeployedSite(Protocol):
    """One BN site of a file. path: a name that a person finds in the model. calls: how often one inference runs it."""

    @property
    def path(self) -> str: ...

    @property
    def channels(self) -> int: ...

    @property
    def epsilon(self) -> float: ...

    @property
    def calls(self) -> int: ...

    @property
    def statistics(self) -> RunningStatistics:
        """In force; as the file has them until `store`."""
        ...

    def store(self, statistics: RunningStatistics) -> None:
        """Put in force, in memory alone, rounded as the file rounds them."""
        ...


class DeployedModel(Protocol):
    """One format, opened. Nothing here changes the file that it was opened from.

    format: in words, as "SavedModel (Keras 3 export)". sites: those that one inference runs. unused: paths of
    those that hold statistics which no inference reads. batch_size: where only batches of that size can be fed.
    """

    path: Path
    format: str
    sites: Sequence[DeployedSite]
    unused: Sequence[str]
    inputs: Sequence[InputSpec]
    batch_size: int | None

    def network(self) -> Network:
        """To be cut at the sites; its inputs are `inputs`, in their order."""
        ...

    def one_pass(
        self, batches: Iterable[Batch], affine: Mapping[str, Affine] | None = None
    ) -> tuple[list[PopulationMoments], int]:
        """As finetune.batchnorm.population.one_pass: per site, and the number of images."""
        ...

    def predict(self, batch: Batch) -> dict[str, NDArray]:
        """The outputs, by name, under the statistics in force."""
        ...

    def write(self, destination: Path) -> int:
        """A copy with the statistics in force at a place that does not exist yet; how many bytes differ.

        Everything but the bytes of changed statistics, and their checksums, is copied as it is. Checked before it
        returns: whoever loads the copy gets what is in force. Raises ModelError, with nothing left behind.
        """
        ...
