"""The optimizer of a stage: its schedule, and what weight decay leaves alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    from finetune.stage import Stage

UNDECAYED = ("gamma", "beta", "bias")
"""Parameters that weight decay leaves alone: it is there to shrink kernels."""


def optimizer_for(stage: Stage, steps: int) -> keras.optimizers.Optimizer:
    """For one stage of `steps` batches in all its epochs; what is left of an accumulation at its end is dropped."""
    # under accumulation too a schedule counts batches (tests/test_keras_behaviour.py)
    rate = _schedule(stage, steps)
    decay = stage.weight_decay or None
    extra: dict[str, Any] = {}
    if stage.ema is not None:
        extra |= {"use_ema": True, "ema_momentum": stage.ema}
    if stage.accumulate > 1:
        extra |= {"gradient_accumulation_steps": stage.accumulate}
    if stage.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(rate, momentum=stage.momentum, weight_decay=decay, **extra)
    elif stage.optimizer == "adam":
        optimizer = keras.optimizers.Adam(rate, weight_decay=decay, **extra)
    else:
        optimizer = keras.optimizers.AdamW(rate, weight_decay=stage.weight_decay, **extra)
    if decay:
        optimizer.exclude_from_weight_decay(var_names=list(UNDECAYED))
    return optimizer


def count_batches(optimizer: keras.optimizers.Optimizer, batches: int) -> None:
    """Go on as if so many batches had been trained on. Under accumulation `iterations` is what follows from it."""
    [counter] = [variable for variable in optimizer.variables if variable.name == "iteration"]
    counter.assign(batches)


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
