"""What every BN policy answers: what is done before, while and after training, and what it promises."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import Field

from finetune.batchnorm.promise import Promise
from finetune.component import Component

if TYPE_CHECKING:
    import keras

    from finetune.batchnorm.measure import Measurement
    from finetune.batchnorm.sites import BNSite

Warn = Callable[[str], None]
"""Takes a sentence that the person should read."""


def unheard(words: str) -> None:
    """For whoever does not want to be warned."""


class Images(Protocol):
    """Opens the images of a set for one pass, in a fixed order."""

    def __call__(self, limit: int | None = None) -> Iterable[Any]:
        """Batches (batch, size, size, 3) of RGB values 0..255, `limit` images at most."""


@dataclass(frozen=True)
class Finish:
    """What a policy did when its running statistics had followed for the last time.

    measurement: of the running statistics, None where none was made. kept: it is in force; otherwise
        the running statistics are those of the training.
    loss_before, loss_after: validation loss around the measurement.
    """

    measurement: Measurement | None = None
    kept: bool = True
    loss_before: float | None = None
    loss_after: float | None = None

    def loss(self, trained: float) -> float:
        """Validation loss of what is in force now; `trained` is that of the training."""
        now = self.loss_after if self.kept else self.loss_before
        return trained if now is None else now


class Policy(Component):
    """Base of every BN policy, whether one for all sites or rules."""

    policy: str
    """Its name, in one word."""

    @abstractmethod
    def promises(self, sites: Sequence[BNSite]) -> dict[str, Promise]:
        """What must be true after the run, by path of every built site."""

    def problems(self, sites: Sequence[BNSite]) -> list[str]:
        """Why the policy cannot be carried out on these sites, one line each."""
        return []

    def start(
        self, model: keras.Model, sites: Sequence[BNSite], calibration: Images, warn: Warn = unheard
    ) -> Measurement | None:
        """Once, before the first stage. Says what was measured where it changed running statistics."""
        return None

    @abstractmethod
    def prepare(self, sites: Sequence[BNSite], *, trained: Sequence[BNSite], steps_per_epoch: int) -> None:
        """Before every compile. `trained` are the sites inside the part of the model that the stage trains."""

    @property
    def frozen_epochs(self) -> int:
        """How many epochs at the end of the last stage train with running statistics that no longer follow."""
        return 0

    def prepare_frozen_epochs(self, sites: Sequence[BNSite], *, trained: Sequence[BNSite]) -> None:
        """Before the compile for those epochs, instead of `prepare`."""

    def measure_anew(
        self, model: keras.Model, sites: Sequence[BNSite], calibration: Images, warn: Warn = unheard
    ) -> Measurement | None:
        """Put measured running statistics in force at those of `sites` that follow; None where none do."""
        return None

    def finish_training(
        self,
        model: keras.Model,
        sites: Sequence[BNSite],
        calibration: Images,
        loss: Callable[[], float],
        warn: Warn = unheard,
    ) -> Finish:
        """Once, when the running statistics have followed for the last time: after the last stage, or before the
        frozen epochs at its end. `loss` evaluates the validation loss of the model as it is."""
        return Finish()


class UniformPolicy(Policy):
    """A policy that does the same at all sites it is given (a row of README's policy table)."""

    sites: str = Field(
        "*",
        min_length=1,
        description="glob over site paths (* matches / too); in a list the first that matches a site decides",
    )

    @property
    @abstractmethod
    def promise(self) -> Promise:
        """What must be true after the run, at every site."""

    def promises(self, sites: Sequence[BNSite]) -> dict[str, Promise]:
        return {site.path: self.promise for site in sites if site.built}
