"""Train gamma and beta on running statistics that stay as they were pretrained.

What Wu & Johnson 2021 (arXiv:2105.07576) call FrozenBN: in training as in inference a site is a fixed
normalisation followed by a trained scale and offset, so that the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from finetune.batchnorm.promise import Promise
from finetune.policies.base import UniformPolicy

if TYPE_CHECKING:
    from finetune.batchnorm.sites import BNSite


class Affine(UniformPolicy):
    """Normalise with the pretrained running statistics, which stay fixed; gamma and beta train."""

    policy: Literal["affine"] = "affine"

    @property
    def promise(self) -> Promise:
        return Promise(statistics="fixed", affine="train")

    def prepare(self, sites: Sequence[BNSite], *, trained: Sequence[BNSite], steps_per_epoch: int) -> None:
        inside = {site.path for site in trained}
        for site in sites:
            if site.path in inside:
                site.hold()
            else:
                site.freeze()
