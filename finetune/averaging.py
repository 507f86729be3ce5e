"""The average of the weights over a stage, with running statistics measured for it (Izmailov et al. 2018,
arXiv:1803.05407).

Running statistics belong to the weights they were taken under: the average of those of the steps on the
way is not what the sites of the averaged network see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import keras

from finetune.policies.base import Images, Policy, Warn

if TYPE_CHECKING:
    from finetune.batchnorm.sites import BNSite


def put_average(
    model: keras.Model, sites: Sequence[BNSite], policy: Policy, calibration: Images, warn: Warn
) -> None:
    """Replace what `fit` trained by the optimizer's average of it; statistics that follow are measured anew."""
    model.optimizer.finalize_variable_values(model.trainable_weights)
    # on JAX weights and averages share their memory now, and the next `evaluate` gives away that of the weights
    model.set_weights(model.get_weights())
    followers = [site for site in sites if site.calls and site.mode == "batch"]
    if followers:
        policy.measure_anew(model, followers, calibration, warn)


def keep_if_no_worse(
    model: keras.Model, put: Callable[[], None], loss: Callable[[], float], before: float
) -> tuple[bool, float]:
    """Whether the model after `put` has at most the validation loss `before`, and its loss; else all is as it was."""
    weights = model.get_weights()
    put()
    after = loss()
    # NaN is no improvement either
    kept = after <= before
    if not kept:
        model.set_weights(weights)
    return kept, after
