"""Whether there are images enough: behind a channel stand images x height x width values, its effective positions.

Few images make statistics of those images and not of the world; a prior counts as images that were seen before.
"""

from __future__ import annotations

from collections.abc import Mapping

from finetune.batchnorm.naming import some
from finetune.result import Check

FEWEST_IMAGES = 32
"""Values of one image resemble each other, so images count as well as positions. The bundled network, whose accuracy
is .925, recalibrated on 1, 8, 16, 32 images that nothing happened to: .093, .719, .914, .921.

    python scripts/measure_gate.py    (two cores of an AMD EPYC, 2026-11-23; rows "no change", all classes)
"""

FEWEST_POSITIONS = 64
"""At the site that has fewest: late sites see few values of an image, and after a dense layer one. The late sites of
the network above have 4: 8 images lose a fifth of the accuracy with 32 values, 16 images lose a hundredth with 64."""


def enough_images(images: int, prior: float) -> Check:
    """As many as leave the statistics no noisier than FEWEST_IMAGES would without a prior."""
    counted = effective(images, prior)
    told = f", worth {counted:.0f} with a prior of {prior:g}" if prior else ""
    return Check(
        "enough images", counted >= FEWEST_IMAGES, f"{images}{told}; at least {FEWEST_IMAGES} expected"
    )


def enough_positions(images: int, positions: Mapping[str, int], prior: float) -> Check:
    """The same for the values behind each channel. positions: by site path, of one image."""
    counted = {path: effective(images, prior) * each for path, each in positions.items()}
    few = sorted((path for path in counted if counted[path] < FEWEST_POSITIONS), key=counted.__getitem__)
    if few:
        listed = some([f"{path}: {counted[path]:.0f}" for path in few])
        wanted = -(-FEWEST_POSITIONS // min(positions[path] for path in few))
        detail = (
            f"fewer than {FEWEST_POSITIONS} behind each channel of {len(few)} of {len(counted)} sites ({listed}); "
            f"give at least {wanted} images"
        )
    else:
        detail = f"{min(counted.values(), default=0):.0f} at the site with fewest, at least {FEWEST_POSITIONS} expected"
    return Check("effective positions", not few, detail)


def effective(images: int, prior: float) -> float:
    """How many images without a prior are as noisy: a share w = n / (N0 + n) of a mean of n has w^2 / n of its
    variance. (N0: Schneider et al. 2020, arXiv:2006.16971.)"""
    return (prior + images) ** 2 / images if images else 0.0
