"""What every BN policy answers: what is done before, while and after training, and what it promises."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from finetune.batchnorm.promise import Promise
from finetune.component import Component

if TYPE_CHECKING:
    import keras

    from finetune.batchnorm.population import Measurement
    from finetune.batchnorm.sites import BNSite


class Images(Protocol):
    """Opens the images of a set for one pass, in a fixed order."""

    def __call__(self, limit: int | None = None) -> Iterable[Any]:
        """Batches (batch, size, size, 3) of RGB values 0..255, `limit` images at most."""


@dataclass(frozen=True)
class Finish:
    """What a policy did after training.

    measurement: of the running statistics, None where none was made. kept: it is in force; otherwise
        the running statistics are those of the training.
    loss_before, loss_after: validation loss around the measurement.
    """

    measurement: Measurement | None = None
    kept: bool = True
    loss_before: float | None = None
    loss_after: float | None = None


class Policy(Component):
    """Base of every BN policy (README, policy table)."""

    @property
    @abstractmethod
    def promise(self) -> Promise:
        """What must be true after the run."""

    def start(self, model: keras.Model, sites: Sequence[BNSite], calibration: Images) -> Measurement | None:
        """Once, before the first stage. Says what was measured where it changed running statistics."""
        return None

    @abstractmethod
    def prepare(self, sites: Sequence[BNSite], *, trained: Sequence[BNSite], steps_per_epoch: int) -> None:
        """Before every compile. `trained` are the sites inside the part of the model that the stage trains."""

    def finish_training(
        self, model: keras.Model, sites: Sequence[BNSite], calibration: Images, loss: Callable[[], float]
    ) -> Finish:
        """Once, after the last stage. `loss` evaluates the validation loss of the model as it is."""
        return Finish()
