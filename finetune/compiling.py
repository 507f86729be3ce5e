"""How a model is compiled for a stage, and for those who get it afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np

from finetune.depth_rates import scale_rates, shares_by_depth
from finetune.keras_backend import on_tensorflow
from finetune.objective import Labels, objective_of
from finetune.optimizer import optimizer_for

if TYPE_CHECKING:
    from finetune.stage import Stage


def compile_stage(
    model: keras.Model,
    stage: Stage,
    steps: int,
    *,
    labels: Labels = "numbers",
    backbone: keras.Model | None = None,
) -> None:
    """Compile for one stage of `steps` batches in all: optimizer, schedule, loss; XLA only where there is an
    accelerator ("auto"). labels: those of the training. backbone: has rates by depth."""
    optimizer = optimizer_for(stage, steps)
    compile_with(model, optimizer, labels)
    if backbone is not None and stage.rate_at_first_layer != 1:
        scale_rates(optimizer, shares_by_depth(backbone, stage.rate_at_first_layer))


def compile_with(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, labels: Labels = "numbers"
) -> None:
    """With an optimizer that goes on where it was."""
    model.compile(optimizer=optimizer, jit_compile="auto", **objective_of(labels))
    _make_variables(model, labels)


def _make_variables(model: keras.Model, labels: Labels) -> None:
    """Of the optimizer and the metrics: a first step that had to make any would be traced twice."""
    model.optimizer.build(model.trainable_variables)
    classes = model.output_shape[-1]
    some = np.zeros((1, classes) if labels == "flags" else 1, np.int32)
    even = np.full((1, classes), 1 / classes, np.float32)
    model.compute_metrics(None, some, even)
    model.reset_metrics()
    if not on_tensorflow():
        # otherwise `fit` reads a batch to make the loss, and the order of the images is drawn once more
        model.compute_loss(None, some, even)
