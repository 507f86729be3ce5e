"""Plain recalibration of an opened model, and of the same network in live Keras."""

from __future__ import annotations

from typing import Any

import numpy as np

from finetune.batchnorm.layerwise import layerwise
from finetune.batchnorm.measure import measure
from finetune.batchnorm.shift import distance
from finetune.batchnorm.sites import find_sites


def recalibrate(model: Any, *inputs: Any, batch: int = 16) -> None:
    """Measure every site of a deployed model layer by layer and put it in force."""

    def settle(number: int, moments: Any, images: int) -> float:
        site = model.sites[number]
        before = site.statistics
        site.store(moments.statistics())
        return distance(before, site.statistics, site.epsilon)

    starts = range(0, len(inputs[0]), model.batch_size or batch)
    size = model.batch_size or batch
    batches = [tuple(i[s : s + size] if np.ndim(i) else i for i in inputs) for s in starts]
    epsilons = [site.epsilon for site in model.sites]
    layerwise(model.network(), batches, settle, memory=10**9, epsilons=epsilons)


def recalibrated(net: Any, images: np.ndarray) -> Any:
    """A live Keras network, its statistics measured on the same images."""
    sites = find_sites(net, images[:1])
    measure(net, sites, lambda: [images[:20], images[20:]])
    return net
