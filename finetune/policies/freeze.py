"""Keep every site as it was pretrained: running statistics, gamma and beta."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from finetune.batchnorm.promise import Promise
from finetune.policies.base import UniformPolicy

if TYPE_CHECKING:
    from finetune.batchnorm.sites import BNSite


class Freeze(UniformPolicy):
    """Normalise with the pretrained running statistics; statistics, gamma and beta stay fixed."""

    policy: Literal["freeze"] = "freeze"

    @property
    def promise(self) -> Promise:
        return Promise(statistics="fixed", affine="fixed")

    def prepare(self, sites: Sequence[BNSite], *, trained: Sequence[BNSite], steps_per_epoch: int) -> None:
        for site in sites:
            site.freeze()
