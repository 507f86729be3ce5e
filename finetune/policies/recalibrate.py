"""Measure the running statistics on the target data first, then keep them.

AdaBN (Li et al. 2016, arXiv:1603.04779) with the weights fine-tuned afterwards; the prior is that of
Schneider et al. 2020 (arXiv:2006.16971).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from finetune.batchnorm.promise import Promise
from finetune.policies.base import Images, Policy

if TYPE_CHECKING:
    import keras

    from finetune.batchnorm.population import Measurement
    from finetune.batchnorm.sites import BNSite


class Recalibrate(Policy):
    """Measure the running statistics on the calibration set before the first stage; then all stays fixed."""

    policy: Literal["recalibrate"] = "recalibrate"
    method: Literal["one_pass"] = "one_pass"
    samples: int = Field(512, ge=1, description="calibration images, at most; fewer where there are fewer")
    prior: float = Field(0.0, ge=0, description="N0: how many images the pretrained statistics count as")

    @property
    def promise(self) -> Promise:
        return Promise(statistics="measured", affine="fixed")

    def start(self, model: keras.Model, sites: Sequence[BNSite], calibration: Images) -> Measurement:
        from finetune.batchnorm.population import measure_one_pass

        return measure_one_pass(model, sites, lambda: calibration(self.samples), self.prior)

    def prepare(self, sites: Sequence[BNSite], *, trained: Sequence[BNSite], steps_per_epoch: int) -> None:
        for site in sites:
            site.freeze()
