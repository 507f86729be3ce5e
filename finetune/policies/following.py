"""Sites that normalise with the batch while their running statistics follow, with a momentum for a short training.

The rule behind `momentum: auto` is that of Kornblith et al. 2019 (arXiv:1805.08974). Measuring the
statistics anew when they have followed for the last time is precise BN, and training the last epochs
with statistics that stay takes the difference between training and inference out of them: both of Wu &
Johnson 2021 (arXiv:2105.07576).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from finetune.batchnorm.promise import Promise
from finetune.policies.base import Finish, Images, UniformPolicy, Warn, unheard
from finetune.policies.measuring import Method, measured

if TYPE_CHECKING:
    import keras

    from finetune.batchnorm.measure import Measurement
    from finetune.batchnorm.sites import BNSite


class Following(UniformPolicy):
    """Base of `retrain` and `statistics`, which differ in gamma and beta alone."""

    affine_trains: ClassVar[bool]

    momentum: Literal["auto", "keep"] | Annotated[float, Field(ge=0, lt=1)] = Field(
        "auto",
        description="Keras' momentum; auto: max(1 - 10 / steps per epoch, 0.9); keep: the backbone's own",
    )
    finish: Literal["recalibrate", "none"] = Field(
        "recalibrate", description="recalibrate: measure anew, kept only if the validation loss does not rise"
    )
    samples: int = Field(512, ge=1, description="calibration images for the finish, at most")
    method: Method = Field("layerwise", description="of the finish: layerwise or one_pass")
    freeze_last_epochs: int = Field(
        0,
        ge=0,
        description="epochs at the end of the last stage that normalise with running statistics that stay;"
        " the finish comes before them",
    )

    @property
    def promise(self) -> Promise:
        affine: Literal["train", "fixed"] = "train" if self.affine_trains else "fixed"
        return Promise("follow", affine, self.freeze_last_epochs)

    @property
    def frozen_epochs(self) -> int:
        return self.freeze_last_epochs

    def prepare(self, sites: Sequence[BNSite], *, trained: Sequence[BNSite], steps_per_epoch: int) -> None:
        inside = {site.path for site in trained}
        for site in sites:
            if site.path in inside:
                site.follow(self._momentum(steps_per_epoch), affine_trains=self.affine_trains)
            else:
                site.freeze()

    def prepare_frozen_epochs(self, sites: Sequence[BNSite], *, trained: Sequence[BNSite]) -> None:
        inside = {site.path for site in trained}
        for site in sites:
            if site.path in inside and self.affine_trains:
                site.hold()
            else:
                site.freeze()

    def _momentum(self, steps_per_epoch: int) -> float | None:
        if self.momentum == "keep":
            return None
        if self.momentum == "auto":
            return max(1.0 - 10.0 / steps_per_epoch, 0.9)
        return self.momentum

    def measure_anew(
        self, model: keras.Model, sites: Sequence[BNSite], calibration: Images, warn: Warn = unheard
    ) -> Measurement | None:
        return measured(model, sites, calibration, warn, method=self.method, samples=self.samples)

    def finish_training(
        self,
        model: keras.Model,
        sites: Sequence[BNSite],
        calibration: Images,
        loss: Callable[[], float],
        warn: Warn = unheard,
    ) -> Finish:
        called = [site for site in sites if site.calls]
        if self.finish == "none" or not called:
            return Finish()
        trained = [site.statistics for site in called]
        before = loss()
        measurement = self.measure_anew(model, sites, calibration, warn)
        after = loss()
        # NaN is no improvement either
        kept = after <= before
        if not kept:
            for site, statistics in zip(called, trained, strict=True):
                site.store(statistics)
        return Finish(measurement=measurement, kept=kept, loss_before=before, loss_after=after)
