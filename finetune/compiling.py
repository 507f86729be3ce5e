"""How a model is compiled for a stage, and for those who get it afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from finetune.depth_rates import scale_rates, shares_by_depth
from finetune.objective import Crossentropy, accuracy
from finetune.optimizer import optimizer_for

if TYPE_CHECKING:
    from finetune.stage import Stage


def compile_stage(
    model: keras.Model,
    stage: Stage,
    steps: int,
    *,
    shares: bool = False,
    backbone: keras.Model | None = None,
) -> None:
    """Compile for one stage of `steps` batches in all: optimizer, schedule, loss; XLA only where there is an
    accelerator ("auto"). shares: the training labels may be shares of the classes. backbone: has rates by depth."""
    optimizer = optimizer_for(stage, steps)
    compile_with(model, optimizer, shares=shares)
    if backbone is not None and stage.rate_at_first_layer != 1:
        scale_rates(optimizer, shares_by_depth(backbone, stage.rate_at_first_layer))


def compile_with(model: keras.Model, optimizer: keras.optimizers.Optimizer, *, shares: bool = False) -> None:
    """With an optimizer that goes on where it was. Without shares of classes, loss and metric are named ones of Keras,
    so that a saved model loads without the toolkit."""
    objective: dict[str, Any] = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}
    if shares:
        objective = {"loss": Crossentropy(), "metrics": [accuracy]}
    model.compile(optimizer=optimizer, jit_compile="auto", **objective)
    _make_variables(model)


def _make_variables(model: keras.Model) -> None:
    """Of the optimizer and the metrics: a first step that had to make any would be traced twice."""
    model.optimizer.build(model.trainable_variables)
    classes = model.output_shape[-1]
    model.compute_metrics(None, np.zeros(1, np.int32), np.full((1, classes), 1 / classes, np.float32))
    model.reset_metrics()
