"""Train the sites like everything else, with a momentum that suits a short training.

The rule behind `momentum: auto` is that of Kornblith et al. 2019 (arXiv:1805.08974); measuring the
statistics anew afterwards is precise BN (Wu & Johnson 2021, arXiv:2105.07576).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from finetune.batchnorm.promise import Promise
from finetune.policies.base import Finish, Images, Policy

if TYPE_CHECKING:
    import keras

    from finetune.batchnorm.sites import BNSite


class Retrain(Policy):
    """Normalise with the batch; running statistics, gamma and beta follow, then are measured anew."""

    policy: Literal["retrain"] = "retrain"
    momentum: Literal["auto", "keep"] | Annotated[float, Field(ge=0, lt=1)] = Field(
        "auto",
        description="Keras' momentum; auto: max(1 - 10 / steps per epoch, 0.9); keep: the backbone's own",
    )
    finish: Literal["recalibrate", "none"] = Field(
        "recalibrate", description="recalibrate: measure anew, kept only if the validation loss does not rise"
    )
    samples: int = Field(512, ge=1, description="calibration images for the finish, at most")

    @property
    def promise(self) -> Promise:
        return Promise(statistics="follow", affine="train")

    def prepare(self, sites: Sequence[BNSite], *, trained: Sequence[BNSite], steps_per_epoch: int) -> None:
        followers = {id(site) for site in trained}
        for site in sites:
            if id(site) in followers:
                site.follow(self._momentum(steps_per_epoch))
            else:
                site.freeze()

    def _momentum(self, steps_per_epoch: int) -> float | None:
        if self.momentum == "keep":
            return None
        if self.momentum == "auto":
            return max(1.0 - 10.0 / steps_per_epoch, 0.9)
        return self.momentum

    def finish_training(
        self, model: keras.Model, sites: Sequence[BNSite], calibration: Images, loss: Callable[[], float]
    ) -> Finish:
        if self.finish == "none":
            return Finish()
        from finetune.batchnorm.population import measure_one_pass

        called = [site for site in sites if site.calls]
        trained = [site.statistics for site in called]
        before = loss()
        measurement = measure_one_pass(model, sites, lambda: calibration(self.samples))
        after = loss()
        # NaN is no improvement either
        kept = after <= before
        if not kept:
            for site, statistics in zip(called, trained, strict=True):
                site.store(statistics)
        return Finish(measurement=measurement, kept=kept, loss_before=before, loss_after=after)
