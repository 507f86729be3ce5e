"""Measure the running statistics on the target data first, then keep them.

AdaBN (Li et al. 2016, arXiv:1603.04779) with the weights fine-tuned afterwards; the prior is that of
Schneider et al. 2020 (arXiv:2006.16971).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import ByteSize, Field

from finetune.batchnorm.promise import Promise
from finetune.policies.base import Images, UniformPolicy, Warn, unheard
from finetune.policies.measuring import MEMORY, Method, measured

if TYPE_CHECKING:
    import keras

    from finetune.batchnorm.measure import Measurement
    from finetune.batchnorm.sites import BNSite


class Recalibrate(UniformPolicy):
    """Measure the running statistics on the calibration set before the first stage; then all stays fixed."""

    policy: Literal["recalibrate"] = "recalibrate"
    method: Method = Field(
        "layerwise", description="layerwise: exact for the finished network; one_pass: precise BN, cheaper"
    )
    samples: int = Field(512, ge=1, description="calibration images, at most; fewer where there are fewer")
    prior: float = Field(0.0, ge=0, description="N0: how many images the pretrained statistics count as")
    memory: Annotated[ByteSize, Field(ge=1)] = Field(
        ByteSize(MEMORY), description="for activations between sites under layerwise, as in 2GB"
    )

    @property
    def promise(self) -> Promise:
        return Promise(statistics="measured", affine="fixed")

    def start(
        self, model: keras.Model, sites: Sequence[BNSite], calibration: Images, warn: Warn = unheard
    ) -> Measurement | None:
        return measured(
            model,
            sites,
            calibration,
            warn,
            method=self.method,
            samples=self.samples,
            prior=self.prior,
            memory=self.memory,
        )

    def prepare(self, sites: Sequence[BNSite], *, trained: Sequence[BNSite], steps_per_epoch: int) -> None:
        for site in sites:
            site.freeze()
