"""Whether a prediction depends on the images beside it, told apart from rounding and from chance."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from finetune.doctor.finding import Finding

Predict = Callable[[NDArray], NDArray]
"""Images as the model reads them, (batch, ...) -> scores (batch, classes)."""

ROUNDING = 1e-5
"""Of the largest score: float32 through a deep network, with other kernels for other batch sizes."""


def company(predict: Predict, images: NDArray, address: str) -> Iterator[Finding]:
    """images: two or more.

    Copies of one image are a batch of the same size and the same moments: what changes against them when the others
    take their places is due to the others alone, what changes against the image by itself is rounding, and what
    changes when they are asked about again is chance.
    """
    copied = np.repeat(images[:1], len(images), axis=0)
    copies, again = predict(copied)[0], predict(copied)[0]
    among_others, alone = predict(images)[0], predict(images[:1])[0]
    if not np.isfinite(copies).all():
        return
    scale = max(float(np.abs(copies).max()), 1e-30)
    effect, noise, chance = (
        float(np.abs(other - copies).max()) / scale for other in (among_others, alone, again)
    )
    if chance > ROUNDING:
        yield Finding(
            "random-predictions",
            "serious",
            f"the same batch asked about twice gives scores {chance:.1e} of the largest one apart",
            "dropout, noise or augmentation is on in service: a stray training=True",
            "layer(x, training=training)    # pass the flag of call() on, never a constant True",
        )
    elif effect > max(ROUNDING, 10 * noise):
        yield Finding(
            "depends-on-batch-mates",
            "serious",
            f"the prediction for an image changes by {effect:.1e} of the largest score with the {len(images) - 1} "
            f"others in its batch; rounding between batch sizes is {noise:.1e}",
            "something normalises with the batch in service: a stray training=True, or an export in training mode",
            f"finetune doctor {address} --json    # its flags; then rebuild without training=True and export again",
        )
    elif noise > 1e-3:
        yield Finding(
            "rounding",
            "note",
            f"the same image gives scores {noise:.1e} apart in batches of 1 and {len(images)}; batch-mates add "
            f"{effect:.1e}",
            "this is rounding, as of half precision, and no batch statistics",
            "keras.config.set_dtype_policy('float32')    # where it matters",
        )
