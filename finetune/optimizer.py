"""The optimizer of a stage: its schedule, and what weight decay leaves alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    from finetune.stage import Stage

UNDECAYED = ("gamma", "beta", "bias")
"""Parameters that weight decay leaves alone: it is there to shrink kernels."""


def optimizer_for(stage: Stage, steps: int) -> keras.optimizers.Optimizer:
    """For one stage of `steps` batches in all its epochs."""
    rate = _schedule(stage, steps)
    decay = stage.weight_decay or None
    average = {"use_ema": True, "ema_momentum": stage.ema} if stage.ema is not None else {}
    if stage.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(rate, momentum=stage.momentum, weight_decay=decay, **average)
    elif stage.optimizer == "adam":
        optimizer = keras.optimizers.Adam(rate, weight_decay=decay, **average)
    else:
        optimizer = keras.optimizers.AdamW(rate, weight_decay=stage.weight_decay, **average)
    if decay:
        optimizer.exclude_from_weight_decay(var_names=list(UNDECAYED))
    return optimizer


def _schedule(stage: Stage, total: int) -> Any:
    """Linear warm-up over a share of the stage, then a cosine to zero or a constant."""
    warmup = int(stage.warmup * total)
    if stage.schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else stage.learning_rate,
            decay_steps=max(total - warmup, 1),
            warmup_target=stage.learning_rate if warmup else None,
            warmup_steps=warmup,
        )
    if not warmup:
        return stage.learning_rate
    return keras.optimizers.schedules.PolynomialDecay(
        initial_learning_rate=stage.learning_rate / warmup,
        decay_steps=warmup,
        end_learning_rate=stage.learning_rate,
    )
