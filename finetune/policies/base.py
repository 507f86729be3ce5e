"""What every BN policy answers: what is done before, while and after training, and what it promises."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from finetune.component import Component

if TYPE_CHECKING:
    import keras

    from finetune.batchnorm.sites import BNSite

Images = Callable[[], Any]
"""Opens an iterable of image batches, (batch, size, size, 3); called once for every pass over the data."""


@dataclass(frozen=True)
class Promise:
    """What the proof holds a policy to, for every site.

    statistics: "fixed" never move; "measured" are measured before training and never move after;
        "follow" the batches of the stages that train the site.
    affine: gamma and beta are "fixed" or "train".
    """

    statistics: Literal["fixed", "measured", "follow"]
    affine: Literal["fixed", "train"]


@dataclass(frozen=True)
class Finish:
    """What a policy did after training.

    measured: the running statistics in force now were measured on the calibration set.
    loss_before, loss_after: validation loss around a measurement, None where there was none.
    """

    measured: bool = False
    kept: bool = True
    loss_before: float | None = None
    loss_after: float | None = None


class Policy(Component):
    """Base of every BN policy (README, policy table)."""

    @property
    @abstractmethod
    def promise(self) -> Promise:
        """What must be true after the run."""

    def start(self, model: keras.Model, sites: Sequence[BNSite], calibration: Images) -> None:
        """Once, before the first stage. May change running statistics."""

    @abstractmethod
    def prepare(self, sites: Sequence[BNSite], *, trained: Sequence[BNSite], steps_per_epoch: int) -> None:
        """Before every compile. `trained` are the sites inside the part of the model that the stage trains."""

    def finish(
        self, model: keras.Model, sites: Sequence[BNSite], calibration: Images, loss: Callable[[], float]
    ) -> Finish:
        """Once, after the last stage. `loss` evaluates the validation loss of the model as it is."""
        return Finish()
